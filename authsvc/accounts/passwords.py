"""The password policy and the hash: NFC, then argon2id with OWASP's parameters (docs/adr/0045)."""

import unicodedata
from collections.abc import Callable
from typing import Any, Final

from django.conf import settings
from django.contrib.auth.hashers import Argon2PasswordHasher
from django.contrib.auth.password_validation import (
    CommonPasswordValidator,
    MinimumLengthValidator,
    NumericPasswordValidator,
    UserAttributeSimilarityValidator,
)
from django.core.exceptions import ValidationError
from django.utils.translation import gettext as _

from runtime.untrusted import is_longer_than

# Characters after NFC.
PASSWORD_MIN: Final = 8
PASSWORD_MAX: Final = 128
# Bytes as typed. NFC composes at most 9 bytes into one character: a Hangul syllable typed as three letters.
PASSWORD_BYTES_MAX: Final = PASSWORD_MAX * 9


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
