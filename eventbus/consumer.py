"""Reading one topic in batches, so that offsets follow the work."""

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, wait
from functools import partial
from typing import Final

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from django.conf import settings
from django.db import close_old_connections
from structlog.contextvars import bind_contextvars

from eventbus.clients import prefixed, reader_config
from eventbus.errors import BugError, TooLargeError, is_transient_in_kafka
from eventbus.incoming import as_incoming, is_error_report
from eventbus.message_traces import trace_of, traces_of
from eventbus.messages import ERROR_TEXT_MAX, Incoming, Rejected, Subscription, dead_letter
from eventbus.metrics import ReadingMetrics
from eventbus.producer import EventProducer
from runtime.backoff import growing_pauses
from runtime.errors import PermanentError, is_transient
from runtime.processes.health import Heartbeat
from runtime.processes.worker import Worker
from runtime.untrusted import shortened

logger = logging.getLogger(__name__)

# Seconds that the first message of a batch is waited for; a stop request waits as long.
POLL: Final = 0.2
# Offsets are committed when no message comes for IDLE seconds, and every COMMIT_EVERY seconds while they do: Kafka
# takes milliseconds over that, and a sign-up's second answer comes as soon after the first.
IDLE: Final = 0.02
COMMIT_EVERY: Final = 0.2
# Seconds that a batch may be in hand without polls. Pausing drops what was fetched ahead and resuming takes up to a
# second, so that what is quick, like a deadlock's second try, must not pay for it.
UNPOLLED: Final = 1.0
# Seconds before a batch is tried again: at first, and the most.
FIRST_PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 10.0
# Seconds that Kafka may take to acknowledge a batch's answers.
ACKNOWLEDGED_WITHIN: Final = 10.0
# Seconds that one try may take before it counts as stuck: from then on the consumer's heartbeat stops. Its polls go on,
# as it would be no help to the batch if another got it in the same state.
TRY_WITHIN: Final = 60.0
# Seconds without a word about partitions, not even that there are none for this member, after which it joins anew:
# twice as long as Kafka and the client wait for a rebalance to end. Seen once: a member that was frozen together with
# Kafka in the middle of a rebalance waited for good.
JOINS_ANEW_AFTER: Final = 60.0
# Seconds that the batch in hand may take after a stop request; then it is left to whoever gets its partitions.
STOPS_WITHIN: Final = 3.0

# Messages that fail unexpectedly one after the other, and the size of a batch of which most fail so, before the handler
# is held to be at fault: the process ends with the error and commits nothing.
BUG_IN_A_ROW: Final = 10
BUG_BATCH: Final = 10

# The partition has, or will have, another reader, who begins where we committed last.
_NOT_OURS_ANY_MORE: Final = frozenset(
    {
        KafkaError._ASSIGNMENT_LOST,
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.REBALANCE_IN_PROGRESS,
        KafkaError.UNKNOWN_MEMBER_ID,
    }
)


class BatchConsumer:
    """Runs a subscription: reads a batch, has it handled, publishes the answers, commits the offsets, in this order.

    Whatever happens in between, the batch is read again by somebody: at least once, never lost. The thread that calls
    run() is the only one that talks to the group; the handler runs on a thread of its own, so that a slow one does not
    cost the group membership.
    """

    def __init__(self, subscription: Subscription, *, heartbeat: Heartbeat | None = None) -> None:
        self.subscription = subscription
        # Those that are ours now. Nothing but the thread of run() may ask the client itself.
        self.partitions: set[int] = set()
        self._topic = prefixed(subscription.topic)
        self._heartbeat = heartbeat or Heartbeat()
        self._metrics = ReadingMetrics(subscription.topic, subscription.group)
        self._consumer = Consumer(reader_config(self._settings()))
        self._producer = EventProducer()
        self._worker = Worker(f"handler of {subscription.group}")
        # Partitions of the batch in hand that have been ours without a break since it was read. One that went and came
        # back is not among them: it is read again from the committed offset, perhaps after somebody else's work.
        self._held: set[int] = set()
        # Where to go on in each partition whose work is done: what is still to be committed.
        self._done: dict[int, int] = {}
        self._commits_at = -math.inf
        self._failures_in_a_row = 0
        self._is_paused = False
        self._polls_from = math.inf
        self._joins_anew_at = math.inf

    def run(self, stop: threading.Event) -> None:
        """Consumes until `stop` is set, then leaves the group, within 5 s.

        Raises BugError where most messages fail unexpectedly, what is neither the message's fault nor passes by itself,
        and KafkaException when the client can do nothing any more: the process should end.
        """
        bind_contextvars(group=self.subscription.group)
        self.join()
        try:
            while not stop.is_set():
                self._heartbeat.beat()
                if time.monotonic() > self._joins_anew_at:
                    logger.warning("Kafka has said nothing of partitions for %.0f s: joining anew", JOINS_ANEW_AFTER)
                    self._consumer.unsubscribe()
                    self.join()
                batch = self.next_batch(IDLE if self._done else POLL)
                if batch and self.work_through(batch, stop):
                    self.note_done(batch)
                if not batch or time.monotonic() > self._commits_at:
                    self.commit_done()
            self.commit_done()
        finally:
            self.close()

    def join(self) -> None:
        """Subscribes; the partitions come with a later poll."""
        self._joins_anew_at = time.monotonic() + JOINS_ANEW_AFTER
        self._consumer.subscribe([self._topic], on_assign=self._on_assign, on_revoke=self._on_revoke)

    def next_batch(self, at_most: float = POLL) -> list[Incoming]:
        """What there is, KAFKA_BATCH_SIZE messages at most. The first is waited for, for so many seconds, and the
        second where the subscription gathers."""
        first = self._consumer.poll(at_most)
        if first is None:
            return []
        messages = [first]
        if self.subscription.gathers:
            messages += self._consumer.consume(min(1, settings.KAFKA_BATCH_SIZE - 1), self.subscription.gathers)
        # consume() with a timeout would wait for all of them, or for all of the time.
        messages += self._consumer.consume(settings.KAFKA_BATCH_SIZE - len(messages), 0)
        batch = [as_incoming(message) for message in messages if not is_error_report(message)]
        self._held = {message.partition for message in batch} & self.partitions
        return batch

    def work_through(self, batch: Sequence[Incoming], stop: threading.Event) -> bool:
        """Repeats the batch until it is handled, answered and put aside; for as long as it takes.

        False when it was given up, because of `stop` or because all its partitions went to others.
        """
        self._polls_from = time.monotonic() + UNPOLLED
        pauses = growing_pauses(first=FIRST_PAUSE, most=LONGEST_PAUSE)
        try:
            while batch:
                work = self._worker.submit(partial(self.process, batch))
                if not self._has_ended(work, stop):
                    logger.warning("a batch of %d was given up to stop in time; it will be read again", len(batch))
                    return False
                error = work.exception()
                if error is None:
                    return True
                if not is_transient(error):
                    raise error
                self._metrics.retries.inc()
                pause = next(pauses)
                words = "a batch of %d is tried again in %.1f s: %s"
                logger.warning(words, len(batch), pause, _in_a_line(error), extra=traces_of(batch))
                if not self._has_waited(pause, stop):
                    return False
                # What others read now is their work; repeating it would be harmless but for the time.
                batch = [message for message in batch if message.partition in self._held]
            return False
        finally:
            self._resume()

    def process(self, batch: Sequence[Incoming]) -> None:
        """One try, on the worker's thread. Returns when Kafka has acknowledged the answers and the dead letters."""
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
        self._metrics.batch_seconds.observe(time.perf_counter() - begun_at)
        self._metrics.messages.inc(len(batch))
        self._metrics.dead_letters.inc(len(rejected))
        for message, error in rejected:
            logger.error("put aside %s: %s", _place(message), _in_a_line(error), extra=trace_of(message))

    def _put_aside(self, rejected: Sequence[Rejected]) -> None:
        group = self.subscription.group
        letters = {dead_letter(message, error, group=group): (message, error) for message, error in rejected}
        try:
            self._producer.send_all(list(letters), timeout=ACKNOWLEDGED_WITHIN)
        except TooLargeError as error:
            # Somebody else made the dead-letter topic, with the limit of other topics.
            cut = [dead_letter(*letters[letter], group=group, cuts=True) for letter in error.failed]
            self._producer.send_all(cut, timeout=ACKNOWLEDGED_WITHIN)

    def handle(self, batch: Sequence[Incoming], failures: dict[Incoming, Exception]) -> list[Rejected]:
        """Has the batch handled and publishes the answers. Returns the rejected messages, among them each that fails
        alone with an error that does not pass (noted in `failures`) or whose answer is too large (docs/adr/0018).

        A batch that fails so is handled in halves, and these in halves, until the message is found.
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
        logger.warning("a batch of %d can't be handled as a whole: %s", len(batch), _in_a_line(error))
        middle = len(batch) // 2
        return [*self.handle(batch[:middle], failures), *self.handle(batch[middle:], failures)]

    def _judge(self, batch: Sequence[Incoming], failures: Mapping[Incoming, Exception]) -> int:
        """How many messages have failed unexpectedly in a row, up to the end of this batch.

        Raises BugError where so many fail that the fault is the handler's and not the messages': a bad release must not
        drain a topic into the dead letters (DESIGN, invariant 6).
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

    def note_done(self, batch: Sequence[Incoming]) -> None:
        """Notes for each partition of the batch that is still ours where to go on after it."""
        for message in batch:
            if message.partition in self._held:
                self._done[message.partition] = max(self._done.get(message.partition, 0), message.offset + 1)

    def commit_done(self) -> None:
        """Commits what is done and waits for Kafka's word on each partition. What failed for now is kept for later."""
        self._commits_at = time.monotonic() + COMMIT_EVERY
        if not self._done:
            return
        offsets = [TopicPartition(self._topic, partition, offset) for partition, offset in self._done.items()]
        try:
            results = self._consumer.commit(offsets=offsets, asynchronous=False)
        except KafkaException as error:
            for partition in list(self._done):
                self._note_commit(partition, error.args[0])
        else:
            for result in results:
                self._note_commit(result.partition, result.error)

    def close(self) -> None:
        """Leaves the group, so that others get its partitions at once, and ends the threads."""
        self._worker.stop(timeout=0.5)
        self._consumer.close()
        self._producer.close(timeout=0.5)

    def _settings(self) -> dict[str, object]:
        own: dict[str, object] = {
            "group.id": prefixed(self.subscription.group),
            "auto.offset.reset": "earliest",
            "session.timeout.ms": 6000,
            # For so long Kafka and this client wait for a rebalance to end; their own 5 minutes would be 5 minutes of
            # orange lights where a member or an answer got lost in it. Polls go on while a batch is in hand, so that
            # nobody is put out by this.
            "max.poll.interval.ms": 30_000,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
        }
        return own

    # --- The group -------------------------------------------------------------------------------------------------

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        consumer.assign(partitions)
        # The client remembers a pause beyond a revocation: what went away paused must not come back so for ever.
        (consumer.pause if self._is_paused else consumer.resume)(partitions)
        self.partitions = {partition.partition for partition in partitions}
        self._joins_anew_at = math.inf
        logger.info("reads partitions %s", _numbers(partitions))
        self._heartbeat.ready()

    def _on_revoke(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        """Also when they were lost, which is when this member was taken for dead."""
        for number in (partition.partition for partition in partitions):
            self.partitions.discard(number)
            self._held.discard(number)
            self._done.pop(number, None)
        self._joins_anew_at = time.monotonic() + JOINS_ANEW_AFTER
        logger.info("gives up partitions %s", _numbers(partitions))

    def _note_commit(self, partition: int, error: KafkaError | None) -> None:
        if error is None or error.code() in _NOT_OURS_ANY_MORE:
            del self._done[partition]
        elif not is_transient_in_kafka(error):
            raise KafkaException(error)
        if error is not None:
            logger.warning("the offset of partition %d was not committed: %s", partition, error.str())

    # --- While a batch is in hand ----------------------------------------------------------------------------------

    def _has_ended(self, work: Future[None], stop: threading.Event) -> bool:
        """Waits for the work, or until a stop request has waited for long enough."""
        until = math.inf
        stuck_at = time.monotonic() + TRY_WITHIN
        while not work.done():
            if time.monotonic() < stuck_at:
                self._heartbeat.beat()
            if stop.is_set():
                until = min(until, time.monotonic() + STOPS_WITHIN)
            if time.monotonic() >= until:
                return False
            self._stand_by(partial(wait, [work]))
        return True

    def _has_waited(self, seconds: float, stop: threading.Event) -> bool:
        """Waits for so long; False if a stop request came."""
        until = time.monotonic() + seconds
        while not stop.is_set() and (left := until - time.monotonic()) > 0:
            self._heartbeat.beat()
            self._stand_by(stop.wait, left)
        return not stop.is_set()

    def _stand_by(self, wait_for: Callable[[float], object], at_most: float = POLL) -> None:
        """One short wait. When the batch has been in hand for long, it is a poll, which Kafka wants now and then."""
        if time.monotonic() < self._polls_from:
            wait_for(min(POLL, at_most))
            return
        self._pause()
        message = self._consumer.poll(min(POLL, at_most))
        if message is not None and not is_error_report(message):
            # No paused partition gives one. If it did, going on after it would lose it.
            read = as_incoming(message)
            self._consumer.seek(TopicPartition(self._topic, read.partition, read.offset))

    def _pause(self) -> None:
        if not self._is_paused:
            self._consumer.pause(self._consumer.assignment())
            self._is_paused = True

    def _resume(self) -> None:
        if self._is_paused:
            self._consumer.resume(self._consumer.assignment())
            self._is_paused = False


def _place(message: Incoming) -> str:
    return f"{message.topic}[{message.partition}] at {message.offset}"


def _numbers(partitions: Sequence[TopicPartition]) -> str:
    return ", ".join(str(partition.partition) for partition in partitions) or "none"


def _in_a_line(error: BaseException) -> str:
    return shortened(f"{type(error).__name__}: {error}", ERROR_TEXT_MAX).splitlines()[0]
