"""What may be a userId, an email and a name, and when two of them are the same (DESIGN, invariant 11)."""

import re
import unicodedata
from typing import Final

from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.utils.translation import gettext_lazy as _

USER_ID_MIN: Final = 2
USER_ID_MAX: Final = 32
USER_NAME_MAX: Final = 100
EMAIL_MAX: Final = 254

# \w is a letter or digit of any script, or an underscore; no emoji, no space, no sign else.
_USER_ID = re.compile(rf"[^\W_][\w.-]{{{USER_ID_MIN - 1},{USER_ID_MAX - 1}}}")

# They turn the text that follows around, also on other people's pages.
_DIRECTIONS: Final = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def normalize_user_id(text: str) -> str:
    """The userId as it is kept and shown: NFKC, so that one look has one spelling."""
    return unicodedata.normalize("NFKC", text)


def user_id_key(text: str) -> str:
    """What two userIds have in common when they are the same. Folding may leave NFKC, hence the second pass."""
    return unicodedata.normalize("NFKC", normalize_user_id(text).casefold())


def normalize_email(text: str) -> str:
    return text.strip().lower()


def validate_user_id(text: str) -> None:
    """Raises ValidationError unless the normalised text may be a userId."""
    if not _USER_ID.fullmatch(text) or len(user_id_key(text)) > USER_ID_MAX * 2:
        raise ValidationError(
            _("Use %(min)d to %(max)d letters, digits, dots, hyphens or underscores; begin with a letter or digit."),
            params={"min": USER_ID_MIN, "max": USER_ID_MAX},
        )


def validate_user_name(text: str) -> None:
    """Raises ValidationError for a name that is empty, too long or holds control characters."""
    if not text:
        raise ValidationError(_("Enter a name."))
    if len(text) > USER_NAME_MAX:
        raise ValidationError(_("Use at most %(max)d characters."), params={"max": USER_NAME_MAX})
    if any(unicodedata.category(character) in ("Cc", "Cs") or character in _DIRECTIONS for character in text):
        raise ValidationError(_("Use no control characters."))
    if not any(unicodedata.category(character)[0] in "LNPS" for character in text):
        raise ValidationError(_("Enter a name that can be seen."))


def validate_address(text: str) -> None:
    """Raises ValidationError unless the normalised text may be an email address."""
    if len(text) > EMAIL_MAX:
        raise ValidationError(_("Use at most %(max)d characters."), params={"max": EMAIL_MAX})
    validate_email(text)
