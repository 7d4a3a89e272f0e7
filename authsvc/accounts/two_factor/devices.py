"""Storage of the second factor: the app's secret and the recovery codes, in django-otp's tables.

A user has at most one confirmed TOTPDevice (RFC 6238), which is the second factor, and one StaticDevice, whose tokens
are the digests of the recovery codes that are left.
"""

import re
import secrets
from base64 import b32encode, urlsafe_b64encode
from dataclasses import dataclass
from hashlib import sha256
from math import ceil
from typing import Any, Final

from django.db import transaction
from django.utils import timezone
from django_otp.plugins.otp_static.models import StaticDevice, StaticToken
from django_otp.plugins.otp_totp.models import TOTPDevice

from authsvc.models import DATABASE, NoSuchAccountError, User
from runtime.database.bulk_sql import kept_from_deletion

RECOVERY_CODES: Final = 10
# Random bytes of a recovery code: 80 bits can't be recovered from a digest, so it needs no salt and no slow hash.
RECOVERY_CODE_BYTES: Final = 10
# django-otp doubles the wait after each wrong code without limit, so an attacker who knows the password could lock the
# owner out for years. From the tenth wrong code on, the wait stays at 512 s.
WRONG_CODES_MAX: Final = 10

_APP_CODE: Final = re.compile(r"[0-9]{6}")
_SEPARATORS: Final = re.compile(r"[\s-]+")


class TooSoonError(Exception):
    """Earlier wrong codes delay the next attempt by `retry_after` seconds."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(retry_after)
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class CodeCheck:
    """Whether a code was right, whether it was checked as a recovery code, and the number of consecutive failures."""

    is_right: bool
    is_recovery_code: bool = False
    failures: int = 0


def second_factor_of(user: User) -> Any:
    """Return the user's confirmed TOTPDevice, or None."""
    return TOTPDevice.objects.filter(user_id=user.pk, confirmed=True).first()


def device_in_setup(user: User) -> Any:
    """Return the user's TOTPDevice that awaits its first code, or None."""
    return TOTPDevice.objects.filter(user_id=user.pk, confirmed=False).first()


@transaction.atomic
def begin_setup(user: User) -> None:
    """Create a new secret, replacing one that was never confirmed. Raise NoSuchAccountError."""
    _keep_from_removal(user)
    TOTPDevice.objects.filter(user_id=user.pk, confirmed=False).delete()
    TOTPDevice.objects.create(user=user, name="app", confirmed=False)


def take_code(device: Any, text: str) -> CodeCheck:
    """Check `text` as a current code of this TOTPDevice or an unused recovery code of its owner, and use it up.

    A code is accepted once. Raise TooSoonError while earlier wrong codes delay this attempt.
    """
    code = _SEPARATORS.sub("", text)
    with transaction.atomic():
        # The lock serialises two requests with the same code, so the second finds the code used.
        asked = TOTPDevice.objects.select_for_update().filter(pk=device.pk).first()
        recovery = StaticDevice.objects.select_for_update().filter(user_id=device.user_id).first()
        if asked is None:
            return CodeCheck(is_right=False)
        is_recovery_code = False
        if asked.confirmed and recovery is not None and not _APP_CODE.fullmatch(code):
            asked, code, is_recovery_code = recovery, _digest(code), True
        is_allowed, refusal = asked.verify_is_allowed()
        if not is_allowed:
            raise TooSoonError(max(1, ceil((refusal["locked_until"] - timezone.now()).total_seconds())))
        is_right = asked.verify_token(code)
        if asked.throttling_failure_count > WRONG_CODES_MAX:
            asked.throttling_failure_count = WRONG_CODES_MAX
            asked.save(update_fields=["throttling_failure_count"])
    return CodeCheck(is_right, is_recovery_code, asked.throttling_failure_count)


@transaction.atomic
def turn_on(device: Any) -> list[str] | None:
    """Make the device its owner's second factor and return the recovery codes, which can't be read again.

    Return None if another setup has replaced the device in the meantime.
    """
    if not TOTPDevice.objects.filter(pk=device.pk).update(confirmed=True):
        return None
    device.confirmed = True
    return new_recovery_codes(device.user)


@transaction.atomic
def new_recovery_codes(user: User) -> list[str]:
    """Replace the user's recovery codes and return the new ones, which can't be read again.

    Raise NoSuchAccountError."""
    _keep_from_removal(user)
    StaticDevice.objects.filter(user_id=user.pk).delete()
    device = StaticDevice.objects.create(user=user, name="recovery codes")
    codes = [b32encode(secrets.token_bytes(RECOVERY_CODE_BYTES)).decode().lower() for _ in range(RECOVERY_CODES)]
    StaticToken.objects.bulk_create(StaticToken(device=device, token=_digest(code)) for code in codes)
    return ["-".join(re.findall("....", code)) for code in codes]


def recovery_codes_left(user: User) -> int:
    return int(StaticToken.objects.filter(device__user_id=user.pk).count())


@transaction.atomic
def turn_off(user: User) -> bool:
    """Remove the second factor, its recovery codes and any setup in progress. Return False if there was none."""
    was_on = second_factor_of(user) is not None
    TOTPDevice.objects.filter(user_id=user.pk).delete()
    StaticDevice.objects.filter(user_id=user.pk).delete()
    return was_on


def _keep_from_removal(user: User) -> None:
    """Make a removal wait for this transaction. Otherwise the new rows could belong to nobody."""
    if not kept_from_deletion(User.objects.filter(pk=user.pk), using=DATABASE):
        raise NoSuchAccountError


def _digest(code: str) -> str:
    """96 bits of SHA-256, which is what the column's 16 characters hold."""
    return urlsafe_b64encode(sha256(code.lower().encode()).digest()[:12]).decode()
