"""Bearer tickets of the API: who has one may see that one sign-up (DESIGN, invariant 9; docs/adr/0007)."""

from collections.abc import Mapping
from functools import cache
from typing import Final
from uuid import UUID

from django.conf import settings
from django.core import signing

# Seconds from the front's request to ours; their clocks may differ.
ADDRESS_MAX_AGE: Final = 300
# What the front leaves in a browser that has signed up, and for how many seconds it is good.
USER_ID_COOKIE: Final = f"{settings.COOKIE_PREFIX}signup_user_id"
USER_ID_MAX_AGE: Final = 3600


def issue_ticket(signup_id: UUID) -> str:
    """A ticket for this sign-up, good for TICKET_MAX_AGE seconds."""
    return _signer("signup-ticket").sign(str(signup_id))


def forwarded_address(header: str, signup_id: UUID) -> str | None:
    """The address of the person for whom the front posts this sign-up; None where the header is not the front's."""
    try:
        signed_id, _, address = _signer("signup-address").unsign(header, max_age=ADDRESS_MAX_AGE).partition(" ")
    except signing.BadSignature:
        return None
    return address if signed_id == str(signup_id) else None


def is_from_front(header: str) -> bool:
    """Whether the front sent this request: it alone signs addresses, be it the one of nobody."""
    try:
        _signer("signup-address").unsign(header, max_age=ADDRESS_MAX_AGE)
    except signing.BadSignature:
        return False
    return True


def user_id_of(cookies: Mapping[str, str]) -> str:
    """The user ID that has just signed up in this browser, "" where there is none."""
    try:
        user_id: str = signing.loads(cookies.get(USER_ID_COOKIE, ""), salt="signup-user-id", max_age=USER_ID_MAX_AGE)
    except signing.BadSignature:
        return ""
    return user_id


def opens(ticket: str, signup_id: UUID) -> bool:
    """Whether this is a genuine, fresh ticket for this very sign-up."""
    try:
        return _signer("signup-ticket").unsign(ticket, max_age=settings.TICKET_MAX_AGE) == str(signup_id)
    except signing.BadSignature:
        return False


@cache
def _signer(salt: str) -> signing.TimestampSigner:
    # Made when it is first used: roles without a SECRET_KEY import this module with the administration.
    return signing.TimestampSigner(salt=salt)
