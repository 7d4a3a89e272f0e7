"""Auth's Kafka consumer: handles the participants' answers."""

import logging
from collections.abc import Sequence
from typing import Final
from uuid import UUID

from django.utils import timezone

from authsvc.lights import DecidedLights, TransactionState, decided_lights_in
from authsvc.metrics import count_verdicts
from authsvc.signups.events import ANSWER_TOPICS, Answer, decode_answer
from authsvc.signups.projection import projection
from authsvc.signups.traffic_counts import counts_of
from authsvc.signups.verdicts import ReportedVerdict, apply_verdicts
from eventbus.messages import HandledBatch, Incoming, Subscription, decode_each
from runtime.errors import PermanentError
from runtime.tracing import log_traces

logger = logging.getLogger(__name__)


def handle_answers(batch: Sequence[Incoming]) -> HandledBatch:
    """Decide the lights in the database, then copy the states to Redis and wake the streams that watch them.

    The state is copied even if an answer changes no light, because the process that handled the answer first may have
    died before copying it (docs/invariants.md, 4). A Redis outage delays nothing: streams then read the database.
    """
    answers, rejected = decode_each(batch, decode_answer)
    begun_at = timezone.now()
    states = apply_verdicts([_reported(answer, message.topic) for message, answer in answers])
    decisions = decided_lights_in(states.values(), since=begun_at)
    projection().write_and_wake(list(states.values()), counts=counts_of(decisions))
    # Log after the wake-up, because people are waiting for that.
    _report_decisions(decisions)
    for message, answer in answers:
        if error := _misfit(answer, states):
            rejected.append((message, error))
    return HandledBatch(rejected=rejected)


def _reported(answer: Answer, topic: str) -> ReportedVerdict:
    return ReportedVerdict(answer.transaction_id, answer.verdict, answer.held_by, kind=_KINDS[topic])


def _report_decisions(decisions: DecidedLights) -> None:
    count_verdicts(decisions)
    for (service, status, _kind), ids in decisions.lights.items():
        log_traces(logger, f"lights decided, {service} {status}: %d", ids)
    log_traces(logger, "transactions complete: %d", [state.transaction_id for state, _ in decisions.complete])


def _misfit(answer: Answer, states: dict[UUID, TransactionState]) -> PermanentError | None:
    """The reason, for the dead letter, why this answer can never decide a light; None if it can."""
    state = states.get(answer.transaction_id)
    if state is None:
        return PermanentError(f"there is no sign-up, change or removal {answer.transaction_id}")
    if answer.service not in state.lights:
        return PermanentError(f"{state.kind} {answer.transaction_id} does not ask the service {answer.service!r}")
    return None


_KINDS: Final = {topic: kind for kind, topic in ANSWER_TOPICS.items()}

# Gather for 2 ms: participants answer a sign-up at nearly the same time, and one batch with both answers finishes
# sooner than two batches.
verdicts = Subscription(group="auth", topics=tuple(ANSWER_TOPICS.values()), handle=handle_answers, gathers=0.002)
