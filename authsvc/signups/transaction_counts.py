"""Count event transactions that pages and commands have begun. The writer of `POST /user` counts its own."""

from collections.abc import Sequence
from datetime import datetime

from authsvc.lights import TransactionState, decided_lights_in
from authsvc.metrics import count_verdicts
from authsvc.signups.projection import projection
from authsvc.signups.traffic_counts import counts_of


def count_begun(
    begun: Sequence[TransactionState], *, ended: Sequence[TransactionState] = (), since: datetime | None = None
) -> None:
    """Count these transactions, and the lights that they have decided of others (`ended`) since that time, which are
    also copied to the projection. Call it after the commit."""
    decisions = decided_lights_in([*begun, *ended], since=since)
    count_verdicts(decisions)
    projection().write_and_wake(ended, counts=counts_of(decisions, begun=len(begun)))
