"""The rules by which two userIds or two email addresses are equal, for every service (docs/invariants.md, 11).

Lengths are checked before normalisation (docs/adr/0038).
"""

import unicodedata
from contextlib import suppress
from typing import Final

from runtime.text_length import is_longer_than

# Length in bytes beyond which a text is neither normalised nor folded, because it can't be a valid userId or address. A
# userId of 32 characters takes at most 288 bytes, if each is a Hangul syllable decomposed into three letters.
USER_ID_BYTES_MAX: Final = 512
EMAIL_BYTES_MAX: Final = 512


def normalize_user_id(text: str) -> str:
    """Return the userId as it is stored and displayed: in NFKC, so that equal looks have equal spellings. A text that
    is too long for a userId is returned unchanged; validation rejects it and no user has it."""
    return text if is_longer_than(USER_ID_BYTES_MAX, text) else unicodedata.normalize("NFKC", text)


def user_id_key(text: str) -> str:
    """Return the key by which userIds are compared. Case folding may undo NFKC, hence the second normalisation."""
    if is_longer_than(USER_ID_BYTES_MAX, text):
        return text
    return unicodedata.normalize("NFKC", normalize_user_id(text).casefold())


def normalize_email(text: str) -> str:
    """Return the address as it is stored and compared: the local part in lower case, the domain in ASCII (IDNA), so
    that one mailbox is one account. A text that is too long for an address is returned unchanged."""
    if is_longer_than(EMAIL_BYTES_MAX, text):
        return text
    text = text.strip()
    if text.isascii():
        return text.lower()
    # Imported on demand: almost all domains are ASCII.
    import idna

    local, at, domain = text.rpartition("@")
    with suppress(UnicodeError):  # not a valid domain, which validation reports
        domain = idna.encode(domain, uts46=True).decode("ascii")
    return unicodedata.normalize("NFC", f"{local}{at}{domain}".lower())
