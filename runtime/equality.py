"""When two userIds or two email addresses are the same, for every service (DESIGN, invariant 11)."""

import unicodedata
from contextlib import suppress
from typing import Final

from runtime.untrusted import is_longer_than

# Bytes beyond which a text is neither normalised nor folded, since it can't become a userId or an address of ours
# (docs/adr/0038): 32 characters of a userId are 288 bytes where each is written as three Hangul letters.
USER_ID_BYTES_MAX: Final = 512
EMAIL_BYTES_MAX: Final = 512


def normalize_user_id(text: str) -> str:
    """The userId as it is kept and shown: NFKC, so that one look has one spelling. A text that is too long for one
    stays as it is: no rule accepts it and no user has it."""
    return text if is_longer_than(USER_ID_BYTES_MAX, text) else unicodedata.normalize("NFKC", text)


def user_id_key(text: str) -> str:
    """What two userIds have in common when they are the same. Folding may leave NFKC, hence the second pass."""
    if is_longer_than(USER_ID_BYTES_MAX, text):
        return text
    return unicodedata.normalize("NFKC", normalize_user_id(text).casefold())


def normalize_email(text: str) -> str:
    """The address as it is kept and compared: the local part in lower case, the domain in ASCII (IDNA), so that one
    mailbox is one account. A text that is too long for one stays as it is."""
    if is_longer_than(EMAIL_BYTES_MAX, text):
        return text
    text = text.strip()
    if text.isascii():
        return text.lower()
    # Loaded when it is needed: nearly every domain is written in ASCII.
    import idna

    local, at, domain = text.rpartition("@")
    with suppress(UnicodeError):  # where it is no domain, which is said where it is judged
        domain = idna.encode(domain, uts46=True).decode("ascii")
    return unicodedata.normalize("NFC", f"{local}{at}{domain}".lower())
