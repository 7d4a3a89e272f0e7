"""The Kafka subscription of each SCIM service. `manage.py consume_events <service>` runs it."""

import logging
import time
from collections.abc import Sequence
from typing import Final

from eventbus.messages import HandledBatch, Incoming, Outgoing, Subscription, decode_each
from participant.events import ANSWERED, REQUESTED, Request, answer, decode_request, is_asked
from participant.subscriptions import reconcile_subscription
from participant.verdict import Judgement
from runtime.errors import PermanentError, TransientError
from runtime.tracing import log_traces
from scimsvc.account_claims import ATTEMPT
from scimsvc.connection import Connection
from scimsvc.errors import LostClaimError, ScimUnavailableError, UnfinishedError
from scimsvc.models import ScimAccount
from scimsvc.reconcile import ScimReconcileHandler

logger = logging.getLogger(__name__)

# Messages in a batch: a light turns only when its whole batch is done, and each message takes two or three requests.
BATCH: Final = 10
# Seconds for which a write may fail, while the server answers lookups, before its message is dead-lettered.
DEAD_LETTERED_AFTER: Final = 60.0
# Messages that may be dead-lettered so in a row. If more fail without a success in between, the server is at fault, not
# the messages, and they wait.
SET_ASIDE_MAX: Final = 3

Place = tuple[str, int, int]


class ScimHandler:
    """Provision the users of one SCIM server. This is an eventbus.messages.Handler.

    Messages that are done are not repeated when the rest of their batch is retried. Raises TransientError, with the
    server's Retry-After, while the server can't be used.
    """

    def __init__(self, service: str) -> None:
        self.service = service
        self.connection = Connection(service)
        # The result of each message of the current batch: its judgement, or the error with which it is dead-lettered.
        self._done: dict[Place, Judgement | Exception] = {}
        self._failing_since: dict[Place, float] = {}
        self._set_aside_in_a_row = 0

    def __call__(self, batch: Sequence[Incoming]) -> HandledBatch:
        decoded, rejected = decode_each(batch, decode_request)
        asked = [(message, request) for message, request in decoded if is_asked(self.service, request)]
        places = {_place(message) for message, _ in asked}
        self._done = {place: outcome for place, outcome in self._done.items() if place in places}
        self._failing_since = {place: since for place, since in self._failing_since.items() if place in places}
        self._work_through(asked)
        answers: list[Outgoing] = []
        for message, request in asked:
            outcome = self._done[_place(message)]
            if isinstance(outcome, Exception):
                rejected.append((message, outcome))
            else:
                answers.append(answer(message, request, outcome, service=self.service))
        # A message that is delivered once more, perhaps after a removal, is judged anew.
        self._done.clear()
        return HandledBatch(answers=answers, rejected=rejected)

    def _work_through(self, asked: Sequence[tuple[Incoming, Request]]) -> None:
        """Apply the requests that are not done. Raises TransientError if any of them remains."""
        until = time.monotonic() + ATTEMPT
        failed: TransientError | None = None
        for message, request in asked:
            if (place := _place(message)) in self._done:
                continue
            if time.monotonic() > until:
                raise failed or TransientError(f"{self.service} is slow: the rest of the batch follows")
            try:
                self._done[place] = self._apply(place, request)
            except (UnfinishedError, LostClaimError) as error:
                # The others are tried nevertheless: they may succeed, and must not wait for this one.
                failed = error
        if failed is not None:
            raise failed

    def _apply(self, place: Place, request: Request) -> Judgement | Exception:
        try:
            judgement = self.connection.provisioning.apply(request)
        except PermanentError as error:
            return error
        except UnfinishedError as error:
            if not self._is_set_aside(place):
                raise
            return error
        except ScimUnavailableError as error:
            text = f"{self.service} can't be provisioned: {error}"
            raise ScimUnavailableError(text, status=error.status, retry_after=error.retry_after) from error
        self._set_aside_in_a_row = 0
        words = judgement.verdict.reason or judgement.verdict.status
        log_traces(logger, f"transactions judged {words}: %d", [request.transaction_id])
        return judgement

    def _is_set_aside(self, place: Place) -> bool:
        """Whether to dead-letter a message whose write fails although the server answers lookups."""
        now = time.monotonic()
        has_failed_long = now - self._failing_since.setdefault(place, now) >= DEAD_LETTERED_AFTER
        if not has_failed_long or self._set_aside_in_a_row >= SET_ASIDE_MAX:
            return False
        self._set_aside_in_a_row += 1
        return True


def _place(message: Incoming) -> Place:
    return message.topic, message.partition, message.offset


def subscriptions_of_server(service: str) -> tuple[Subscription, Subscription]:
    """Return the subscriptions of one SCIM service. Each has consumer groups of its own, so that a server that is down
    delays no other."""
    handler = ScimHandler(service)
    accounts = Subscription(
        group=service,
        topics=REQUESTED,
        handle=handler,
        answers_to=ANSWERED,
        batch=BATCH,
        prepare=handler.connection.prepare,
    )
    rows = ScimAccount.objects.filter(server=service)
    return accounts, reconcile_subscription(service, ScimReconcileHandler(service), exports=rows, batch=1)
