"""Replay: publish the events of selected sign-ups, changes and removals again, with auth's current records.

This restores a participant that has lost something.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple
from uuid import UUID

from django.db.models import QuerySet

from authsvc.lights import Kind
from authsvc.models import EventTransaction
from authsvc.signups.events import requested
from authsvc.signups.outbox import ask_again, ask_also, records_of
from authsvc.signups.projection import projection
from eventbus.errors import DeliveryError
from eventbus.producer import Delivery, EventProducer
from runtime.tracing import log_traces

logger = logging.getLogger(__name__)

# Number of transactions that are read and published at a time.
PAGE: Final = 1000
ACKNOWLEDGED_WITHIN: Final = 30.0


@dataclass(frozen=True, slots=True)
class ReplayCounts:
    """Numbers of transactions: sent (acknowledged by Kafka), skipped (nothing to send), failed (not acknowledged)."""

    sent: int = 0
    skipped: int = 0
    failed: int = 0

    def __add__(self, other: "ReplayCounts") -> "ReplayCounts":
        return ReplayCounts(self.sent + other.sent, self.skipped + other.skipped, self.failed + other.failed)


class _Chosen(NamedTuple):
    """The columns that a replay reads of each event transaction."""

    id: UUID
    kind: str
    owner_signup_id: UUID
    user_id: str
    record_version: int
    attempts: int
    pending_count: int


def replay(
    signups: QuerySet[EventTransaction], *, producer: EventProducer | None, service: str | None = None
) -> Iterator[ReplayCounts]:
    """Publish the events of `signups` again, to `service` only or to every participant. Yield the counts of each page.
    Memory use is bounded by two pages: one is read while Kafka acknowledges the previous one.

    A sign-up or change whose user is gone is skipped. The attempts of an incomplete transaction are reset, and a
    sign-up without a light for `service` gets one; decided lights don't change. Without a producer it is a dry run:
    nothing is sent or changed.
    """
    before = None
    for page in _pages(signups):
        begun = _begin(page, producer, service)
        if before is not None:
            yield before.finish()
        before = begun
    if before is not None:
        yield before.finish()


def _pages(signups: QuerySet[EventTransaction]) -> Iterator[Sequence[_Chosen]]:
    rest = signups = signups.order_by("id")
    while page := [_Chosen._make(row) for row in rest.values_list(*_Chosen._fields)[:PAGE]]:
        yield page
        rest = signups.filter(id__gt=page[-1].id)


@dataclass(frozen=True, slots=True)
class _Begun:
    """A page whose events are being sent; `delivery` is None in a dry run."""

    chosen: int
    skipped: int
    delivery: Delivery | None

    def finish(self) -> ReplayCounts:
        """Wait until Kafka has acknowledged the events, and return the page's counts."""
        failed = 0
        try:
            if self.delivery is not None:
                self.delivery.wait()
        except DeliveryError as error:
            failed = len(error.failed)
        return ReplayCounts(sent=self.chosen - failed, skipped=self.skipped, failed=failed)


def _begin(page: Sequence[_Chosen], producer: EventProducer | None, service: str | None) -> _Begun:
    records = records_of({each.owner_signup_id for each in page})
    chosen = [each for each in page if each.kind == Kind.REMOVAL or each.owner_signup_id in records]
    delivery = None
    if producer is not None:
        # Reset attempts before sending: if these events get lost, the relay sends them again.
        renewed = _renew(chosen, service)
        events = [
            requested(
                each,
                records.get(each.owner_signup_id),
                attempt=1 if each.id in renewed else each.attempts,
                services=[service] if service else None,
            )
            for each in chosen
        ]
        log_traces(logger, "sign-ups, changes and removals replayed: %d", [each.id for each in chosen])
        delivery = producer.begin_all(events, timeout=ACKNOWLEDGED_WITHIN)
    return _Begun(len(chosen), len(page) - len(chosen), delivery)


def _renew(chosen: Sequence[_Chosen], service: str | None) -> set[UUID]:
    """Reset the attempts of the transactions that wait for an answer, even one from `service`. Return their IDs."""
    incomplete = {each.id for each in chosen if each.pending_count}
    if incomplete:
        ask_again(incomplete)
    if service is None:
        return incomplete
    states = ask_also([each.id for each in chosen], service=service)
    # Write the projection: with the added light, a complete copy is no longer final.
    projection().write_and_wake(states)
    return incomplete | {state.transaction_id for state in states}
