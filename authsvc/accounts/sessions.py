"""Sessions in auth's database, as Django has them, for keys that Django can have made."""

from django.contrib.sessions.backends import db


class SessionStore(db.SessionStore):
    """Django looks up whatever the cookie says, and PostgreSQL refuses a NUL, which a cookie can spell, in a question:
    any page that looks for its user would be a 500. A key that is none counts as no session."""

    def __init__(self, session_key: str | None = None) -> None:
        is_key = session_key is not None and session_key.isascii() and session_key.isalnum()
        super().__init__(session_key if is_key else None)
