"""Read the current states of sign-ups from auth's database."""

from collections.abc import Sequence
from uuid import UUID

from authsvc.lights import SignUpState
from authsvc.models import SignUp, UnconfirmedSignUp


def read_states(signup_ids: Sequence[UUID]) -> dict[UUID, SignUpState]:
    """Return the current states, by ID, of those sign-ups that exist, including unconfirmed ones."""
    states = _read_signups(signup_ids)
    if unknown := [signup_id for signup_id in signup_ids if signup_id not in states]:
        states |= {row.id: row.state for row in UnconfirmedSignUp.objects.filter(id__in=unknown)}
        # A sign-up that was confirmed between the two queries was in neither result.
        states |= _read_signups([signup_id for signup_id in unknown if signup_id not in states])
    return states


def _read_signups(signup_ids: Sequence[UUID]) -> dict[UUID, SignUpState]:
    signups = SignUp.objects.only("id", "created_at", "version", "lights", "stalled_at").in_bulk(list(signup_ids))
    return {signup_id: signup.state for signup_id, signup in signups.items()}
