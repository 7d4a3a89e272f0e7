"""Sessions in auth's database, as Django has them, for keys that Django can have made."""

from django.contrib.sessions.backends import db


class SessionStore(db.SessionStore):
    """Django looks up whatever the cookie says, and PostgreSQL refuses a NUL, which a cookie can spell, in a question:
    any page that looks for its user would be a 500. A key that is none counts as no session."""

    def _validate_session_key(self, key: str | None) -> bool:
        return super()._validate_session_key(key) and key is not None and key.isascii() and key.isalnum()
