"""Read the current states of sign-ups, changes and removals from auth's database."""

from collections.abc import Sequence
from uuid import UUID

from django.db.models import Q

from authsvc.lights import Kind, TransactionState
from authsvc.models import EventTransaction, UnconfirmedSignUp


def read_states(transaction_ids: Sequence[UUID]) -> dict[UUID, TransactionState]:
    """Return the current states, by ID, of those event transactions that exist, including unconfirmed sign-ups. Of a
    removed account, only the removal still has a state: nobody may follow the others any more."""
    states = _read_saved(transaction_ids)
    if unknown := [each for each in transaction_ids if each not in states]:
        states |= {row.id: row.state for row in UnconfirmedSignUp.objects.filter(id__in=unknown)}
        # A sign-up that was confirmed between the two queries was in neither result.
        states |= _read_saved([each for each in unknown if each not in states])
    return states


def _read_saved(transaction_ids: Sequence[UUID]) -> dict[UUID, TransactionState]:
    rows = EventTransaction.objects.exclude(~Q(kind=Kind.REMOVAL), user_id_key="")
    rows = rows.only("id", "kind", "created_at", "version", "lights", "stalled_at")
    return {each: row.state for each, row in rows.in_bulk(list(transaction_ids)).items()}
