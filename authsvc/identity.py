"""What may be a userId, an email and a name, and when two of them are the same (DESIGN, invariant 11).

Texts are measured before they are normalised (docs/adr/0038); which characters a name may have is docs/adr/0039.
"""

import unicodedata
from contextlib import suppress
from typing import Final

from django.core.exceptions import ValidationError
from django.utils.translation import gettext_lazy as _

from authsvc.invisible import hides_something, is_hidden
from authsvc.lookalikes import looks_reserved
from runtime.scripts import mixes_digits, mixes_scripts
from runtime.untrusted import is_longer_than

USER_ID_MIN: Final = 2
USER_ID_MAX: Final = 32
USER_NAME_MAX: Final = 100
EMAIL_MAX: Final = 254
# Characters before the @ (RFC 5321, 4.5.3.1.1). Longer ones no mail server takes.
LOCAL_PART_MAX: Final = 64
# Bytes beyond which a text is neither normalised nor folded, since it can't become a userId or an address of ours: 32
# characters of a userId are 288 bytes where each is written as three Hangul letters.
USER_ID_BYTES_MAX: Final = 512
EMAIL_BYTES_MAX: Final = 512
# Marks on one letter. Four are more than any living script stacks (UTS 39, 5.4).
MARKS_MAX: Final = 4

_WORD_SIGNS: Final = "._-"


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
    with suppress(UnicodeError):  # where it is no domain, which validate_address() says
        domain = idna.encode(domain, uts46=True).decode("ascii")
    return unicodedata.normalize("NFC", f"{local}{at}{domain}".lower())


def validate_user_id(text: str) -> None:
    """Raises ValidationError unless the normalised text may be a userId."""
    is_short = USER_ID_MIN <= len(text) <= USER_ID_MAX and len(user_id_key(text)) <= USER_ID_MAX * 2
    if is_short and any(map(is_hidden, text)):
        raise ValidationError(_("Do not use invisible characters."))
    if not (is_short and text[0].isalnum() and all(map(_is_of_a_word, text))):
        raise ValidationError(
            _("Use %(min)d to %(max)d letters, digits, dots, hyphens or underscores; begin with a letter or digit."),
            params={"min": USER_ID_MIN, "max": USER_ID_MAX},
        )
    if text.isascii():
        return
    if _has_stray_marks(text):
        raise ValidationError(
            _("Put accents and vowel signs after a letter, at most %(max)d different ones."), params={"max": MARKS_MAX}
        )
    if mixes_scripts(text):
        raise ValidationError(_("Use letters of only one script, such as Latin or Cyrillic."))
    if mixes_digits(text):
        raise ValidationError(_("Use digits of only one script."))


def validate_not_reserved(text: str) -> None:
    """Raises ValidationError for a valid userId that strangers may not have: one of RESERVED_USER_IDS, or its
    look-alike. An administrator may give it to somebody."""
    if looks_reserved(text):
        raise ValidationError(_("This user ID is reserved. Choose another one."))


def validate_user_name(text: str) -> None:
    """Raises ValidationError for a name that is empty, too long or holds what nobody sees."""
    if not text:
        raise ValidationError(_("Enter a name."))
    if len(text) > USER_NAME_MAX:
        raise ValidationError(_("Use at most %(max)d characters."), params={"max": USER_NAME_MAX})
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in text):
        raise ValidationError(_("Do not use control characters."))
    if hides_something(text):
        raise ValidationError(_("Do not use invisible characters."))
    if _has_heap_of_marks(text):
        raise ValidationError(
            _("Put accents and vowel signs after a letter, at most %(max)d different ones."), params={"max": MARKS_MAX}
        )
    if not any(unicodedata.category(character)[0] in "LNPS" for character in text):
        raise ValidationError(_("Enter a name with visible characters."))


def validate_address(text: str) -> None:
    """Raises ValidationError unless the normalised text may be an email address. Whether its domain takes mail is not
    asked: that is a question to strangers' name servers, and the mail that asks for confirmation answers it better."""
    # Loaded when it is needed: most roles never judge an address.
    from email_validator import EmailNotValidError, validate_email

    if len(text) > EMAIL_MAX:
        raise ValidationError(_("Use at most %(max)d characters."), params={"max": EMAIL_MAX})
    if hides_something(text):
        raise ValidationError(_("Do not use invisible characters."))
    if not text.rpartition("@")[0].isascii():
        raise ValidationError(_("Use only Latin letters, digits and symbols before the @."))
    if len(text.rpartition("@")[0]) > LOCAL_PART_MAX:
        raise ValidationError(_("Enter a valid email address."))
    try:
        # test_environment: addresses in .test, where nobody can get mail by RFC 6761, do no harm.
        validate_email(text, check_deliverability=False, allow_smtputf8=False, test_environment=True)
    except EmailNotValidError:
        raise ValidationError(_("Enter a valid email address.")) from None


def _is_of_a_word(character: str) -> bool:
    """Whether a userId may have this character somewhere."""
    return character.isalnum() or character in _WORD_SIGNS or _is_mark(character)


def _is_mark(character: str) -> bool:
    return unicodedata.category(character) in ("Mn", "Mc")


def _has_heap_of_marks(text: str) -> bool:
    """Whether so many marks follow each other that they cover the lines around them."""
    run = 0
    for character in unicodedata.normalize("NFD", text):
        run = run + 1 if _is_mark(character) else 0
        if run > MARKS_MAX:
            return True
    return False


def _has_stray_marks(text: str) -> bool:
    """Whether a mark stands on no letter, twice on one, or among too many."""
    marks: list[str] = []
    takes_marks = False
    for character in text:
        if _is_mark(character):
            if not takes_marks or character in marks or len(marks) == MARKS_MAX:
                return True
            marks.append(character)
        else:
            marks, takes_marks = [], character.isalpha()
    return False
