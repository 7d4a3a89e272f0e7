"""How long a login opens the administration: shorter than it opens the account page (docs/adr/0045)."""

import time
from typing import Any, Final

from django.conf import settings
from django.contrib.auth.signals import user_logged_in
from django.contrib.sessions.backends.base import SessionBase
from django.dispatch import receiver
from django.http import HttpRequest

# In the session: when its user logged in, and when a page of the administration was last opened.
_LOGGED_IN_AT: Final = "logged_in_at"
_USED_AT: Final = "admin_used_at"
# Seconds: an opened page is noted once in so many, as each note writes the session.
NOTED_EVERY: Final = 60


@receiver(user_logged_in)
def note_login(sender: Any, *, request: HttpRequest | None, **kwargs: Any) -> None:
    """Wherever it was: at the administration's login, or at the other one. Every login gives the session a new key:
    Django's leaves the key alone when the same person logs in again."""
    if request is not None:
        if request.session.session_key == request.COOKIES.get(settings.SESSION_COOKIE_NAME):
            request.session.cycle_key()
        request.session[_LOGGED_IN_AT] = request.session[_USED_AT] = time.time()


def may_still_administer(session: SessionBase) -> bool:
    """Whether the login is younger than ADMIN_SESSION_AGE and the last page than ADMIN_SESSION_IDLE."""
    limits = ((_LOGGED_IN_AT, settings.ADMIN_SESSION_AGE), (_USED_AT, settings.ADMIN_SESSION_IDLE))
    # Either way: another process's clock may be ahead a little, and one that was set back a year must not decide.
    return all(abs(time.time() - session.get(name, 0)) < seconds for name, seconds in limits)


def note_use(request: HttpRequest) -> None:
    """Notes that a person opened a page. What a page asks for by itself is no use: it would go on for ever."""
    is_page = request.headers.get("Sec-Fetch-Dest", "document") == "document"
    if is_page and time.time() - request.session.get(_USED_AT, 0) > NOTED_EVERY:
        request.session[_USED_AT] = time.time()
