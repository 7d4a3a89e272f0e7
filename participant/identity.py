"""When two userIds or two emails are the same (DESIGN, invariant 11), and how long the texts of a user may be.

Auth has its own twin of these functions: services share the contract, not classes. tests/contract/test_identity.py
compares the two, and sees to it that no limit here, in characters, is stricter than auth's.
"""

import unicodedata
from typing import Final

USER_ID_MAX: Final = 64
# Case folding makes at most three characters of one.
USER_ID_KEY_MAX: Final = 3 * USER_ID_MAX
EMAIL_MAX: Final = 254
USER_NAME_MAX: Final = 150
ROLE_MAX: Final = 32


def normalize_user_id(text: str) -> str:
    """The userId as it is kept and shown: NFKC."""
    return unicodedata.normalize("NFKC", text)


def user_id_key(text: str) -> str:
    """What two userIds have in common when they are the same. Folding may leave NFKC, hence the second pass."""
    return unicodedata.normalize("NFKC", normalize_user_id(text).casefold())


def normalize_email(text: str) -> str:
    """The email address as it is kept and compared."""
    return text.strip().lower()
