"""Normal forms that decide whether two userIds or emails are the same (DESIGN, invariant 11), and length limits.

Auth has its own copy of these functions, because services share the contract, not classes.
tests/contract/test_identity.py compares the two, and ensures that no limit here is stricter than auth's.
"""

import unicodedata
from contextlib import suppress
from typing import Final

from runtime.untrusted import is_longer_than

USER_ID_MAX: Final = 64
# Case folding turns one character into at most three.
USER_ID_KEY_MAX: Final = 3 * USER_ID_MAX
EMAIL_MAX: Final = 254
USER_NAME_MAX: Final = 150
ROLE_MAX: Final = 32
# Longer texts, in bytes, can't be a userId or an address and are neither normalised nor folded (docs/adr/0038).
USER_ID_BYTES_MAX: Final = 512
EMAIL_BYTES_MAX: Final = 512


def normalize_user_id(text: str) -> str:
    """Return the userId in NFKC, as it is stored and shown. Text that is too long is returned unchanged."""
    return text if is_longer_than(USER_ID_BYTES_MAX, text) else unicodedata.normalize("NFKC", text)


def user_id_key(text: str) -> str:
    """Return a key that is equal for userIds that count as the same: the case-folded NFKC form.

    Case folding may leave NFKC, hence the second normalisation."""
    if is_longer_than(USER_ID_BYTES_MAX, text):
        return text
    return unicodedata.normalize("NFKC", normalize_user_id(text).casefold())


def normalize_email(text: str) -> str:
    """Return the address as it is stored and compared: in lower case, with the domain in ASCII (IDNA).

    Text that is too long is returned unchanged."""
    if is_longer_than(EMAIL_BYTES_MAX, text):
        return text
    text = text.strip()
    if text.isascii():
        return text.lower()
    # Imported lazily: nearly every domain is ASCII.
    import idna

    local, at, domain = text.rpartition("@")
    with suppress(UnicodeError):  # not a valid domain
        domain = idna.encode(domain, uts46=True).decode("ascii")
    return unicodedata.normalize("NFC", f"{local}{at}{domain}".lower())
