"""One attempt at a batch: handle it, publish its answers, and dead-letter the messages that can't be handled."""

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Final

from django.db import close_old_connections
from structlog.contextvars import bind_contextvars

from eventbus.errors import BugError, TooLargeError
from eventbus.incoming_traces import trace_of
from eventbus.messages import ERROR_TEXT_MAX, Incoming, Rejected, Subscription, dead_letter
from eventbus.metrics import ReadingMetrics
from eventbus.producer import EventProducer
from runtime.errors import PermanentError, is_transient
from runtime.text_length import shortened

logger = logging.getLogger(__name__)

# Timeout in seconds for Kafka to acknowledge a batch's answers.
ACKNOWLEDGED_WITHIN: Final = 10.0
# Number of consecutive unexpected failures, and minimum size of a batch most of which fails unexpectedly, that put the
# blame on the handler: the process ends with the error and commits nothing.
BUG_IN_A_ROW: Final = 10
BUG_BATCH: Final = 10


class BatchProcessor:
    """Processes the batches of one subscription, one at a time, on the thread of the caller."""

    def __init__(self, subscription: Subscription, producer: EventProducer, metrics: ReadingMetrics) -> None:
        self.subscription = subscription
        self._producer = producer
        self._metrics = metrics
        self._failures_in_a_row = 0

    def process(self, batch: Sequence[Incoming]) -> None:
        """Make one attempt, and return when Kafka has acknowledged the answers and the dead letters.

        Raises transient errors, after which the batch can be tried again, and BugError if most messages fail
        unexpectedly.
        """
        bind_contextvars(group=self.subscription.group)
        begun_at = time.perf_counter()
        failures: dict[Incoming, Exception] = {}
        try:
            rejected = self.handle(batch, failures)
            in_a_row = self._judge(batch, failures)
            self._put_aside(rejected)
        except Exception:
            close_old_connections()
            raise
        self._failures_in_a_row = in_a_row
        self._metrics.handled(batch, rejected, seconds=time.perf_counter() - begun_at)
        for message, error in rejected:
            logger.error("dead-lettered %s: %s", _place(message), type_and_first_line(error), extra=trace_of(message))

    def _put_aside(self, rejected: Sequence[Rejected]) -> None:
        group = self.subscription.group
        letters = {dead_letter(message, error, group=group): (message, error) for message, error in rejected}
        try:
            self._producer.send_all(list(letters), timeout=ACKNOWLEDGED_WITHIN)
        except TooLargeError as error:
            # The dead-letter topic was created elsewhere, with the size limit of ordinary topics.
            cut = [dead_letter(*letters[letter], group=group, cuts=True) for letter in error.failed]
            self._producer.send_all(cut, timeout=ACKNOWLEDGED_WITHIN)

    def handle(self, batch: Sequence[Incoming], failures: dict[Incoming, Exception]) -> list[Rejected]:
        """Handle the batch, publish the answers, and return the rejected messages.

        These include messages that fail alone with an error that is not transient (an unexpected one is also added to
        `failures`) and those whose answer is too large (docs/adr/0018). A failing batch is bisected to find them.
        """
        try:
            handled = self.subscription.handle(batch)
        except Exception as error:
            if is_transient(error):
                raise
            if len(batch) == 1 and not isinstance(error, PermanentError):
                failures[batch[0]] = error
            return self._handle_halves(batch, error, failures)
        try:
            self._producer.send_all(handled.answers, timeout=ACKNOWLEDGED_WITHIN)
        except TooLargeError as error:
            return self._handle_halves(batch, error, failures)
        return list(handled.rejected)

    def _handle_halves(
        self, batch: Sequence[Incoming], error: Exception, failures: dict[Incoming, Exception]
    ) -> list[Rejected]:
        if len(batch) == 1:
            logger.error("can't handle %s", _place(batch[0]), exc_info=error, extra=trace_of(batch[0]))
            return [(batch[0], error)]
        logger.warning("a batch of %d can't be handled as a whole: %s", len(batch), type_and_first_line(error))
        middle = len(batch) // 2
        return [*self.handle(batch[:middle], failures), *self.handle(batch[middle:], failures)]

    def _judge(self, batch: Sequence[Incoming], failures: Mapping[Incoming, Exception]) -> int:
        """Return the number of consecutive unexpected failures up to the end of this batch.

        Raises BugError if so many messages fail that the handler must be at fault: a bad release must not drain a topic
        into the dead letters.
        """
        if not failures:
            return 0
        in_a_row = self._failures_in_a_row
        for message in batch:
            in_a_row = in_a_row + 1 if message in failures else 0
            if in_a_row >= BUG_IN_A_ROW:
                raise BugError(f"{in_a_row} messages in a row failed") from failures[message]
        if len(batch) >= BUG_BATCH and 2 * len(failures) > len(batch):
            raise BugError(f"{len(failures)} of a batch of {len(batch)} messages failed") from next(
                iter(failures.values())
            )
        return in_a_row


def type_and_first_line(error: BaseException) -> str:
    """Return the error's type and the first line of its text, for a log message."""
    return shortened(f"{type(error).__name__}: {error}", ERROR_TEXT_MAX).splitlines()[0]


def _place(message: Incoming) -> str:
    return f"{message.topic}[{message.partition}] at {message.offset}"
