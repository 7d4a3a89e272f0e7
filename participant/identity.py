"""When two userIds or two emails are the same (DESIGN, invariant 11), and how long the texts of a user may be.

Auth has its own twin of these functions: services share the contract, not classes. tests/contract/test_identity.py
compares the two, and sees to it that no limit here, in characters, is stricter than auth's.
"""

import unicodedata
from contextlib import suppress
from typing import Final

from runtime.untrusted import is_longer_than

USER_ID_MAX: Final = 64
# Case folding makes at most three characters of one.
USER_ID_KEY_MAX: Final = 3 * USER_ID_MAX
EMAIL_MAX: Final = 254
USER_NAME_MAX: Final = 150
ROLE_MAX: Final = 32
# Bytes beyond which a text is neither normalised nor folded, since it can't be a userId or an address (docs/adr/0038).
USER_ID_BYTES_MAX: Final = 512
EMAIL_BYTES_MAX: Final = 512


def normalize_user_id(text: str) -> str:
    """The userId as it is kept and shown: NFKC. A text that is too long for one stays as it is."""
    return text if is_longer_than(USER_ID_BYTES_MAX, text) else unicodedata.normalize("NFKC", text)


def user_id_key(text: str) -> str:
    """What two userIds have in common when they are the same. Folding may leave NFKC, hence the second pass."""
    if is_longer_than(USER_ID_BYTES_MAX, text):
        return text
    return unicodedata.normalize("NFKC", normalize_user_id(text).casefold())


def normalize_email(text: str) -> str:
    """The address as it is kept and compared: the local part in lower case, the domain in ASCII (IDNA). A text that is
    too long for one stays as it is."""
    if is_longer_than(EMAIL_BYTES_MAX, text):
        return text
    text = text.strip()
    if text.isascii():
        return text.lower()
    # Loaded when it is needed: nearly every domain is written in ASCII.
    import idna

    local, at, domain = text.rpartition("@")
    with suppress(UnicodeError):  # where it is no domain
        domain = idna.encode(domain, uts46=True).decode("ascii")
    return unicodedata.normalize("NFC", f"{local}{at}{domain}".lower())
