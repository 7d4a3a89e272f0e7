"""What auth reads from Kafka: the participants' answers."""

import logging
from collections.abc import Sequence
from uuid import UUID

from django.utils import timezone

from authsvc.lights import Decisions, SignUpState, decisions_in
from authsvc.metrics import count_verdicts
from authsvc.signups.events import NEW_USER_ANSWERED, NewUserAnswered, decode_answer
from authsvc.signups.projection import projection
from authsvc.signups.traffic_counts import counts_of
from authsvc.signups.verdicts import ReportedVerdict, apply_verdicts
from eventbus.messages import HandledBatch, Incoming, Subscription, decode_each
from runtime.errors import PermanentError
from runtime.tracing import log_traces

logger = logging.getLogger(__name__)


def handle_answers(batch: Sequence[Incoming]) -> HandledBatch:
    """Decides the lights in the database, then copies the states to Redis and wakes who watches.

    An answer that changes no light is copied too, because the process that handled it first may have died in between
    (DESIGN, invariant 4). Redis being away delays nothing: streams then read the lights from the database.
    """
    answers, rejected = decode_each(batch, decode_answer)
    begun_at = timezone.now()
    states = apply_verdicts([ReportedVerdict(answer.signup_id, answer.verdict) for _, answer in answers])
    decisions = decisions_in(states.values(), since=begun_at)
    projection().write_and_wake(list(states.values()), counts=counts_of(decisions))
    # People wait for the wake-up, so the log lines come after it.
    _tell(decisions)
    for message, answer in answers:
        if error := _misfit(answer, states):
            rejected.append((message, error))
    return HandledBatch(rejected=rejected)


def _tell(decisions: Decisions) -> None:
    count_verdicts(decisions)
    for (service, status), signup_ids in decisions.lights.items():
        log_traces(logger, f"lights turned, {service} {status}: %d", signup_ids)
    log_traces(logger, "sign-ups complete: %d", [state.signup_id for state, _ in decisions.complete])


def _misfit(answer: NewUserAnswered, states: dict[UUID, SignUpState]) -> PermanentError | None:
    """Why this answer turns no light and never will, for the dead letter."""
    state = states.get(answer.signup_id)
    if state is None:
        return PermanentError(f"there is no sign-up {answer.signup_id}")
    if answer.service not in state.lights:
        return PermanentError(f"sign-up {answer.signup_id} does not ask the service {answer.service!r}")
    return None


# The participants answer one sign-up at nearly the same time; both in one batch are there sooner than the second alone.
verdicts = Subscription(group="auth", topic=NEW_USER_ANSWERED, handle=handle_answers, gathers=0.002)
