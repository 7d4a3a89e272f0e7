"""The password policy and the hash: NFC, then argon2id with OWASP's parameters (docs/adr/0045)."""

import base64
import binascii
import re
import unicodedata
from collections.abc import Callable
from typing import Any, Final

from django.conf import settings
from django.contrib.auth.hashers import Argon2PasswordHasher, identify_hasher
from django.contrib.auth.password_validation import (
    CommonPasswordValidator,
    MinimumLengthValidator,
    NumericPasswordValidator,
    UserAttributeSimilarityValidator,
)
from django.core.exceptions import ValidationError
from django.utils.translation import gettext as _

from runtime.argon2_costs import is_sufficient
from runtime.text_length import is_longer_than

# Characters after NFC.
PASSWORD_MIN: Final = 8
PASSWORD_MAX: Final = 128
# Bytes as typed. NFC composes at most 9 bytes into one character: a Hangul syllable typed as three letters.
PASSWORD_BYTES_MAX: Final = PASSWORD_MAX * 9

# Characters of a stored hash (User.password).
HASH_MAX: Final = 128
# Stored in place of a hash until an imported user chooses a password. To Django it is unusable, like the random text of
# a user whose password an administrator has taken away, and who can't choose another one.
NOT_CHOSEN: Final = "!not chosen"
# The costs of an imported hash, which each login has to pay: Django's own defaults are 100 MiB, 2 passes and 8 lanes.
MEMORY_KIB_MAX: Final = 128 * 1024
PASSES_MAX: Final = 10
LANES_MAX: Final = 16
_HASH: Final = re.compile(
    r"argon2\$argon2id\$v=19\$m=(?P<memory>\d{1,7}),t=(?P<passes>\d{1,3}),p=(?P<lanes>\d{1,3})"
    r"\$(?P<salt>[A-Za-z0-9+/]{11,})\$(?P<hash>[A-Za-z0-9+/]{22,})",
    re.ASCII,
)


def is_too_long(password: str) -> bool:
    """Whether the text has more bytes than any valid password. Check this first: NFC takes quadratic time."""
    return is_longer_than(PASSWORD_BYTES_MAX, password)


def normalize_password(password: str) -> str:
    """Return the NFC form, so that a password is the same on every keyboard. Overlong text is returned unchanged."""
    return password if is_too_long(password) else unicodedata.normalize("NFC", password)


def validate_length(password: str) -> None:
    """Raise ValidationError if the password is longer than PASSWORD_MAX or contains surrogates."""
    if is_too_long(password) or len(normalize_password(password)) > PASSWORD_MAX:
        raise ValidationError(_("Use at most %(max)d characters."), params={"max": PASSWORD_MAX})
    if any("\ud800" <= character <= "\udfff" for character in password):
        raise ValidationError(_("Do not use NUL or incomplete characters."))


def validate_hash(encoded: str) -> None:
    """Raise ValidationError unless this is a hash, made elsewhere, that can be used here: by argon2id, as Django writes
    it, with costs that are neither too low to be safe nor too high for a login. Only a command shows the message."""
    try:
        identify_hasher(encoded)
    except ValueError:
        raise ValidationError("This is not a hash of an algorithm in use here, which is argon2id.") from None
    parts = _HASH.fullmatch(encoded)
    if len(encoded) > HASH_MAX or not parts or not (_is_base64(parts["salt"]) and _is_base64(parts["hash"])):
        raise ValidationError("This is not an argon2id hash as Django stores it.")
    memory, passes, lanes = (int(parts[name]) for name in ("memory", "passes", "lanes"))
    if not is_sufficient(memory, passes):
        raise ValidationError("This hash is too cheap to crack; have the user set a new password.")
    if memory > MEMORY_KIB_MAX or passes > PASSES_MAX or not 1 <= lanes <= LANES_MAX:
        raise ValidationError("This hash takes too much memory or time to check.")


def _is_base64(text: str) -> bool:
    """Whether argon2 can decode it: without padding, and with no bits left over."""
    try:
        decoded = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except binascii.Error:
        return False
    return base64.b64encode(decoded).decode().rstrip("=") == text


class PasswordPolicy:
    """The only entry of AUTH_PASSWORD_VALIDATORS, so it applies wherever Django or this project sets a password.

    A list of validators would each run on the text as typed, however long it is.
    """

    def __init__(self) -> None:
        self._validators: list[Any] = [
            UserAttributeSimilarityValidator(user_attributes=("user_id", "user_name", "email")),
            MinimumLengthValidator(min_length=PASSWORD_MIN),
            CommonPasswordValidator(),
            NumericPasswordValidator(),
        ]

    def validate(self, password: str, user: Any = None) -> None:
        validate_length(password)
        text = normalize_password(password)
        errors = [error for each in self._validators if (error := _error_of(each.validate, text, user))]
        if errors:
            raise ValidationError(errors)

    def get_help_text(self) -> str:
        return " ".join(str(each.get_help_text()) for each in self._validators)


def _error_of(validate: Callable[[str, Any], None], text: str, user: Any) -> ValidationError | None:
    try:
        validate(text, user)
    except ValidationError as error:
        return error
    return None


class Argon2idHasher(Argon2PasswordHasher):
    """Django's argon2id of the NFC form, with the parameters of OWASP's cheat sheet (19 MiB, t=2, p=1).

    Older hashes are of the text as typed, so verify() also tries that where it differs.
    """

    memory_cost = settings.ARGON2_MEMORY_KIB
    time_cost = settings.ARGON2_TIME_COST
    parallelism = 1

    def encode(self, password: str, salt: str) -> str:
        normalized = normalize_password(password)
        if normalized != password:
            # Cost as much as a failing verify(): Django hashes once for an unknown user, and timing would reveal that.
            super().encode(password, salt)
        return super().encode(normalized, salt)

    def verify(self, password: str, encoded: str) -> bool:
        normalized = normalize_password(password)
        if super().verify(normalized, encoded):
            return True
        return normalized != password and super().verify(password, encoded)
