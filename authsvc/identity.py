"""Validation of userIds, email addresses and names. runtime.equality normalises them and says when two are equal.

docs/adr/0039 defines the allowed characters.
"""

import unicodedata
from typing import Final

from django.core.exceptions import ValidationError
from django.utils.translation import gettext_lazy as _

from authsvc.invisible import hides_something, is_hidden
from authsvc.lookalikes import looks_reserved
from runtime.equality import user_id_key
from runtime.scripts import mixes_digits, mixes_scripts

USER_ID_MIN: Final = 2
USER_ID_MAX: Final = 32
# A folded user ID may be longer than its user ID.
USER_ID_KEY_MAX: Final = 2 * USER_ID_MAX
USER_NAME_MAX: Final = 100
EMAIL_MAX: Final = 254
# Characters before the @ (RFC 5321, 4.5.3.1.1). Mail servers accept no longer ones.
LOCAL_PART_MAX: Final = 64
# Combining marks per letter. No living script needs more than four (UTS 39, 5.4).
MARKS_MAX: Final = 4

_WORD_SIGNS: Final = "._-"


def validate_user_id(text: str) -> None:
    """Raise ValidationError unless the normalised text is a valid userId."""
    is_short = USER_ID_MIN <= len(text) <= USER_ID_MAX and len(user_id_key(text)) <= USER_ID_KEY_MAX
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
    """Raise ValidationError for a userId that is, or looks like, one of RESERVED_USER_IDS. Only an administrator may
    assign such a userId."""
    if looks_reserved(text):
        raise ValidationError(_("This user ID is reserved. Choose another one."))


def validate_user_name(text: str) -> None:
    """Raise ValidationError for a name that is empty, too long, or contains invisible characters."""
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
    """Raise ValidationError unless the normalised text is a valid email address. Whether its domain accepts mail is not
    checked: that would query foreign name servers, and the confirmation mail is the better test."""
    # Imported on demand: most roles never validate an address.
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
        # test_environment allows addresses in .test, which are harmless: they can't receive mail (RFC 6761).
        validate_email(text, check_deliverability=False, allow_smtputf8=False, test_environment=True)
    except EmailNotValidError:
        raise ValidationError(_("Enter a valid email address.")) from None


def _is_of_a_word(character: str) -> bool:
    """Whether a userId may contain this character."""
    return character.isalnum() or character in _WORD_SIGNS or _is_mark(character)


def _is_mark(character: str) -> bool:
    return unicodedata.category(character) in ("Mn", "Mc")


def _has_heap_of_marks(text: str) -> bool:
    """Whether so many combining marks follow each other that they would overlap adjacent lines."""
    run = 0
    for character in unicodedata.normalize("NFD", text):
        run = run + 1 if _is_mark(character) else 0
        if run > MARKS_MAX:
            return True
    return False


def _has_stray_marks(text: str) -> bool:
    """Whether a combining mark follows no letter, is repeated on one letter, or is one of too many on it."""
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
