"""Bearer tickets of the API: who has one may see that one sign-up (DESIGN, invariant 9; docs/adr/0007)."""

from uuid import UUID

from django.conf import settings
from django.core import signing

_signer = signing.TimestampSigner(salt="signup-ticket")


def issue_ticket(signup_id: UUID) -> str:
    """A ticket for this sign-up, good for TICKET_MAX_AGE seconds."""
    return _signer.sign(str(signup_id))


def opens(ticket: str, signup_id: UUID) -> bool:
    """Whether this is a genuine, fresh ticket for this very sign-up."""
    try:
        return _signer.unsign(ticket, max_age=settings.TICKET_MAX_AGE) == str(signup_id)
    except signing.BadSignature:
        return False
