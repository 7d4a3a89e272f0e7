"""Bearer tickets of the API: who has one may see that one sign-up (DESIGN, invariant 9; docs/adr/0007)."""

from functools import cache
from typing import Final
from uuid import UUID

from django.conf import settings
from django.core import signing

# Seconds from the front's request to ours; their clocks may differ.
ADDRESS_MAX_AGE: Final = 300


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
