"""Replay: auth's present records are published again for chosen sign-ups, which heals a participant that lost them."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from django.db.models import QuerySet
from redis.exceptions import RedisError

from authsvc.events import new_user_requested
from authsvc.lights import SignUpState
from authsvc.models import SignUp
from authsvc.projection import projection
from authsvc.services import ask_again, records_of
from eventbus.errors import DeliveryError
from eventbus.messages import Outgoing
from eventbus.producer import EventProducer
from eventbus.tracing import log_traces

logger = logging.getLogger(__name__)

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

    A sign-up is skipped where auth's record is gone. One that is incomplete gets all its tries again, one that never
    asked `service` gets its light; a decided light stays as it is. Without a producer nothing is sent or changed: a
    dry run.
    """
    signups = signups.only("owner_signup_id", "lights", "pending_count", "attempts")
    rest = signups.order_by("id")
    while chunk := list(rest[:CHUNK]):
        yield _replay_chunk(chunk, producer, service)
        rest = signups.filter(id__gt=chunk[-1].id).order_by("id")


def _replay_chunk(chunk: Sequence[SignUp], producer: EventProducer | None, service: str | None) -> ReplayCounts:
    records = records_of(chunk)
    chosen = [signup for signup in chunk if signup.owner_signup_id in records]
    skipped = len(chunk) - len(chosen)
    if producer is None:
        return ReplayCounts(sent=len(chosen), skipped=skipped)
    # Before it is sent: what is sent now may be lost like any other event.
    again = {each.id for each in chosen if each.pending_count or service not in (None, *each.lights)}
    states = ask_again(list(again), service=service)
    if service is not None:
        _show(states)
    messages = [
        new_user_requested(
            records[signup.owner_signup_id],
            signup_id=signup.id,
            attempt=1 if signup.id in again else signup.attempts,
            services=[service] if service else None,
        )
        for signup in chosen
    ]
    log_traces(logger, "sign-ups replayed: %d", [signup.id for signup in chosen])
    failed = _failed_to_send(messages, producer)
    return ReplayCounts(sent=len(chosen) - failed, skipped=skipped, failed=failed)


def _show(states: Sequence[SignUpState]) -> None:
    """A light that was added takes the finality from a copy that was complete."""
    try:
        projection().write_and_wake(states)
    except RedisError as error:
        logger.warning("the projection can't be written: %s", error)


def _failed_to_send(messages: Sequence[Outgoing], producer: EventProducer) -> int:
    try:
        producer.send_all(messages, timeout=ACKNOWLEDGED_WITHIN)
    except DeliveryError as error:
        return len(error.failed)
    return 0
