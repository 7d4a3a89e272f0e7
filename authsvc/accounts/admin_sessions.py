"""Limit how long a login is valid for the administration: shorter than for the account page (docs/adr/0045)."""

import time
from typing import Any, Final

from django.conf import settings
from django.contrib.auth.signals import user_logged_in
from django.contrib.sessions.backends.base import SessionBase
from django.dispatch import receiver
from django.http import HttpRequest

# Session keys: time of the login, and time at which an admin page was last opened.
_LOGGED_IN_AT: Final = "logged_in_at"
_USED_AT: Final = "admin_used_at"
# Record an opened page at most once in this many seconds, because each record writes the session.
NOTED_EVERY: Final = 60


@receiver(user_logged_in)
def note_login(sender: Any, *, request: HttpRequest | None, **kwargs: Any) -> None:
    """Record the login at either login page, and give the session a new key.

    Django keeps the key when the same person logs in again.
    """
    if request is not None:
        if request.session.session_key == request.COOKIES.get(settings.SESSION_COOKIE_NAME):
            request.session.cycle_key()
        request.session[_LOGGED_IN_AT] = request.session[_USED_AT] = time.time()


def may_still_administer(session: SessionBase) -> bool:
    """Whether the login is younger than ADMIN_SESSION_AGE and the last page than ADMIN_SESSION_IDLE."""
    limits = ((_LOGGED_IN_AT, settings.ADMIN_SESSION_AGE), (_USED_AT, settings.ADMIN_SESSION_IDLE))
    # abs(): another process's clock may be slightly ahead, and one set back by a year must not extend a session.
    return all(abs(time.time() - session.get(name, 0)) < seconds for name, seconds in limits)


def note_use(request: HttpRequest) -> None:
    """Record that a person opened a page. Requests made by a page itself don't count: they would keep it alive."""
    is_page = request.headers.get("Sec-Fetch-Dest", "document") == "document"
    if is_page and time.time() - request.session.get(_USED_AT, 0) > NOTED_EVERY:
        request.session[_USED_AT] = time.time()
