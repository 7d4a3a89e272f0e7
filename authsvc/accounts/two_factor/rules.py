"""Rules that decide whether a session counts as logged in, and whether a user may administer."""

from typing import Any

from django.conf import settings
from django.contrib.auth.models import AnonymousUser
from django.contrib.sessions.backends.base import SessionBase
from django_otp import DEVICE_ID_SESSION_KEY

from authsvc.accounts.two_factor.devices import second_factor_of
from authsvc.models import User


def admitted(session: SessionBase, user: Any) -> User | AnonymousUser:
    """Return the session's user, or AnonymousUser if the session has not proved the user's second factor.

    This rule guards every page and the API: a session from before the second factor was turned on has to log in again.
    Reads the database when a user is logged in.
    """
    if not isinstance(user, User):
        return AnonymousUser()
    device = second_factor_of(user)
    if device is not None and session.get(DEVICE_ID_SESSION_KEY) != device.persistent_id:
        return AnonymousUser()
    user.otp_device = device
    return user


def may_administer(user: Any) -> bool:
    """Whether an admitted user is staff and, where ADMIN_TWO_FACTOR requires one, has a second factor."""
    if not (user.is_active and user.is_staff):
        return False
    return user.otp_device is not None or settings.ADMIN_TWO_FACTOR != "required"


def must_set_up(user: Any) -> bool:
    """Whether only a missing second factor keeps this member of staff out of the administration."""
    return bool(user.is_active and user.is_staff) and not may_administer(user)
