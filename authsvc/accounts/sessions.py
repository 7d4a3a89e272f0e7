"""Django's database sessions, which accept only keys that Django can have created and survive a new SECRET_KEY."""

from collections.abc import Iterator
from contextlib import contextmanager

from django.contrib.sessions.backends import db
from django.utils.crypto import constant_time_compare

from authsvc.models import User


class SessionStore(db.SessionStore):
    """Treat a malformed session key as no session.

    Django queries for whatever the cookie contains, and PostgreSQL rejects a NUL, which a cookie can encode: every
    page that looks up its user would answer 500.
    """

    def __init__(self, session_key: str | None = None) -> None:
        is_key = session_key is not None and session_key.isascii() and session_key.isalnum()
        super().__init__(session_key if is_key else None)
        self._keeps_key = False

    @contextmanager
    def keeping_key(self) -> Iterator[None]:
        """Keep the session key while Django's get_user() runs.

        After SECRET_KEY was replaced, get_user() gives the session a new key and deletes the old one. The browser never
        learns the new key if the request was one to the API, and two requests at the same time can't both use the old
        one: either would log the user out.
        """
        self._keeps_key = True
        try:
            yield
        finally:
            self._keeps_key = False

    def cycle_key(self) -> None:
        if not self._keeps_key:
            super().cycle_key()

    async def acycle_key(self) -> None:
        if not self._keeps_key:
            await super().acycle_key()


def has_password_hash(user: User, known: str) -> bool:
    """Whether `known`, which user.get_session_auth_hash() returned earlier, shows that the password is still the same.
    It may have been computed with a key that is now in SECRET_KEY_FALLBACKS."""
    hashes = (user.get_session_auth_hash(), *user.get_session_auth_fallback_hash())
    return any(constant_time_compare(known, each) for each in hashes)
