"""Django's database sessions, limited to keys that Django can have created."""

from django.contrib.sessions.backends import db


class SessionStore(db.SessionStore):
    """Treat a malformed session key as no session.

    Django queries for whatever the cookie contains, and PostgreSQL rejects a NUL, which a cookie can encode: every
    page that looks up its user would answer 500.
    """

    def __init__(self, session_key: str | None = None) -> None:
        is_key = session_key is not None and session_key.isascii() and session_key.isalnum()
        super().__init__(session_key if is_key else None)
