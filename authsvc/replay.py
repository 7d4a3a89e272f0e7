"""Replay: auth's present records are published again for chosen sign-ups, which heals a participant that lost them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from django.db.models import QuerySet
from django.utils import timezone
from eventbus.errors import DeliveryError
from eventbus.messages import Outgoing
from eventbus.producer import EventProducer
from eventbus.transactions import atomically

from authsvc.events import new_user_requested
from authsvc.models import SignUp
from authsvc.services import AUTH, DATABASE, pause_after, records_of

CHUNK: Final = 500
ACKNOWLEDGED_WITHIN: Final = 30.0


@dataclass(frozen=True, slots=True)
class ReplayCounts:
    """How many sign-ups were sent (acknowledged by Kafka), skipped (nothing to send) and could not be sent."""

    sent: int = 0
    skipped: int = 0
    failed: int = 0

    def __add__(self, other: "ReplayCounts") -> "ReplayCounts":
        return ReplayCounts(self.sent + other.sent, self.skipped + other.skipped, self.failed + other.failed)


def replay(
    signups: QuerySet[SignUp], *, producer: EventProducer | None, service: str | None = None
) -> Iterator[ReplayCounts]:
    """Publishes the events of `signups` again, to `service` alone or to every participant; yields the counts of each
    chunk, so that a million of them need the memory of one chunk.

    A sign-up is skipped where auth's record is gone or `service` is none that it asks. One that is incomplete gets
    all its tries again; a decided light stays as it is. Without a producer nothing is sent or changed: a dry run.
    """
    rest = signups.order_by("id")
    while chunk := list(rest[:CHUNK]):
        yield _replay_chunk(chunk, producer, service)
        rest = signups.filter(id__gt=chunk[-1].id).order_by("id")


def _replay_chunk(chunk: Sequence[SignUp], producer: EventProducer | None, service: str | None) -> ReplayCounts:
    chosen = [signup for signup in chunk if service is None or (service != AUTH and service in signup.lights)]
    records = records_of(chosen)
    chosen = [signup for signup in chosen if signup.owner_signup_id in records]
    skipped = len(chunk) - len(chosen)
    if producer is None:
        return ReplayCounts(sent=len(chosen), skipped=skipped)
    _make_due_again(chosen)
    messages = [
        new_user_requested(
            records[signup.owner_signup_id],
            signup_id=signup.id,
            attempt=signup.attempts,
            services=[service] if service else None,
        )
        for signup in chosen
    ]
    failed = _failed_to_send(messages, producer)
    return ReplayCounts(sent=len(chosen) - failed, skipped=skipped, failed=failed)


def _make_due_again(signups: Sequence[SignUp]) -> None:
    """Gives those that are incomplete all their tries again. What is sent now may be lost like any other event."""
    incomplete = [signup.id for signup in signups if signup.pending_count]
    atomically(
        lambda: SignUp.objects.filter(id__in=incomplete, pending_count__gt=0).update(
            attempts=1, next_due_at=timezone.now() + pause_after(1), stalled_at=None
        ),
        using=DATABASE,
    )


def _failed_to_send(messages: Sequence[Outgoing], producer: EventProducer) -> int:
    try:
        producer.send_all(messages, timeout=ACKNOWLEDGED_WITHIN)
    except DeliveryError as error:
        return len(error.failed)
    return 0
