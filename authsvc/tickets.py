"""The API's bearer tickets: each grants access to one sign-up (docs/invariants.md, 9; docs/adr/0007)."""

from functools import cache
from typing import Final
from uuid import UUID

from django.conf import settings
from django.core import signing

# Maximum age in seconds of the front's signature; the clocks of the two hosts may differ.
ADDRESS_MAX_AGE: Final = 300


def issue_ticket(signup_id: UUID) -> str:
    """Return a ticket for this sign-up, valid for TICKET_MAX_AGE seconds."""
    return _signer("signup-ticket").sign(str(signup_id))


def forwarded_address(header: str, signup_id: UUID) -> str | None:
    """Return the address of the person for whom the front posts this sign-up; None if the front didn't sign it."""
    try:
        signed_id, _, address = _signer("signup-address").unsign(header, max_age=ADDRESS_MAX_AGE).partition(" ")
    except signing.BadSignature:
        return None
    return address if signed_id == str(signup_id) else None


def is_from_front(header: str) -> bool:
    """Whether the front sent this request: only the front signs addresses, possibly an empty one."""
    try:
        _signer("signup-address").unsign(header, max_age=ADDRESS_MAX_AGE)
    except signing.BadSignature:
        return False
    return True


def opens(ticket: str, signup_id: UUID) -> bool:
    """Whether the ticket is genuine, not expired, and for this sign-up."""
    try:
        return _signer("signup-ticket").unsign(ticket, max_age=settings.TICKET_MAX_AGE) == str(signup_id)
    except signing.BadSignature:
        return False


@cache
def _signer(salt: str) -> signing.TimestampSigner:
    # Created on first use: roles without a SECRET_KEY import this module too, through the admin.
    return signing.TimestampSigner(salt=salt)
