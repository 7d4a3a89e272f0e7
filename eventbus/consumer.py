"""Read topics in batches, and commit offsets only after the work is done."""

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from functools import partial
from itertools import groupby
from operator import itemgetter
from typing import Final

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from django.conf import settings
from structlog.contextvars import bind_contextvars

from eventbus.batch_processor import BatchProcessor, type_and_first_line
from eventbus.clients import close_consumer, prefixed, reader_config, unprefixed
from eventbus.errors import is_transient_in_kafka
from eventbus.group_member import GroupMember, group_config
from eventbus.incoming import as_incoming, is_error_report
from eventbus.incoming_traces import traces_of
from eventbus.messages import Incoming, Subscription
from eventbus.metrics import ReadingMetrics
from eventbus.producer import EventProducer
from runtime.backoff import growing_pauses
from runtime.errors import TransientError, is_transient
from runtime.processes.health import Heartbeat
from runtime.processes.worker import Worker

logger = logging.getLogger(__name__)

# Seconds to wait for the first message of a batch. A stop request may wait as long.
POLL: Final = 0.2
# Offsets are committed after IDLE seconds without a message, and every COMMIT_EVERY seconds under load. A commit takes
# milliseconds, and a sign-up's second answer follows the first that closely.
IDLE: Final = 0.02
COMMIT_EVERY: Final = 0.2
# Seconds that a batch may take before the consumer pauses its partitions and polls. Pausing drops prefetched messages
# and resuming takes up to a second, so quick work, such as a retry after a deadlock, must not pay for it.
UNPOLLED: Final = 1.0
# Seconds before a batch is retried: the first and the longest pause.
FIRST_PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 10.0
# Seconds after which one attempt counts as stuck and the consumer's heartbeat stops. Polling continues, because moving
# the batch to another consumer in the same state would not help.
TRY_WITHIN: Final = 60.0
# Seconds that the current batch may take after a stop request. Then it is left to the next owner of its partitions.
STOPS_WITHIN: Final = 3.0

# The partition is being reassigned. Its next reader starts at our last commit.
_NOT_OURS_ANY_MORE: Final = frozenset(
    {
        KafkaError._ASSIGNMENT_LOST,
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.REBALANCE_IN_PROGRESS,
        KafkaError.UNKNOWN_MEMBER_ID,
    }
)


# A partition: its topic, without KAFKA_PREFIX, and its number.
PartitionKey = tuple[str, int]


class BatchConsumer:
    """Run a subscription: read a batch, handle it, publish the answers, and commit the offsets, in this order.

    A failure in between means that the batch is read again (at-least-once delivery). Only the thread that calls run()
    talks to the consumer group, until it closes the client. The handler runs on a separate thread, so that slow work
    does not cost the membership.
    """

    def __init__(self, subscription: Subscription, *, heartbeat: Heartbeat | None = None) -> None:
        self.subscription = subscription
        # Currently assigned partitions. Only the thread of run() may ask the client itself.
        self.partitions: set[PartitionKey] = set()
        self._heartbeat = heartbeat or Heartbeat()
        self._metrics = ReadingMetrics(subscription.topics, subscription.group)
        own = {
            **group_config(subscription.group),
            # Also the rebalance timeout. With the default of 5 minutes, a member lost in a rebalance would keep lights
            # orange for as long. Polling continues while a batch is handled, so slow work is not evicted.
            "max.poll.interval.ms": 30_000,
            "enable.auto.offset.store": False,
        }
        self._consumer = Consumer(reader_config(own))
        self._member = GroupMember(
            self._consumer,
            subscription.topics,
            heartbeat=self._heartbeat,
            on_assign=self._on_assign,
            on_revoke=self._on_revoke,
        )
        self._producer = EventProducer()
        self._processor = BatchProcessor(subscription, self._producer, self._metrics)
        self._worker = Worker(f"handler of {subscription.group}")
        # Partitions of the current batch that have stayed assigned since it was read. One that was revoked and came
        # back is excluded: it is read again from the committed offset, perhaps after another member's work.
        self._held: set[PartitionKey] = set()
        # Offsets of finished work, by partition, that are not committed yet.
        self._done: dict[PartitionKey, int] = {}
        self._commits_at = -math.inf
        self._is_paused = False
        self._polls_from = math.inf

    def run(self, stop: threading.Event) -> None:
        """Consume until `stop` is set, then leave the group within 5 s.

        Raises StrandedError if this consumer must be replaced; BugError if most messages fail unexpectedly, any error
        that is neither transient nor a message's fault, and KafkaException after a fatal error of the client. The
        process should end after these.
        """
        bind_contextvars(group=self.subscription.group)
        self.join()
        try:
            while not stop.is_set():
                self._heartbeat.beat()
                self._member.rejoin_if_forgotten(stop)
                batch = self.next_batch(IDLE if self._done else POLL)
                if batch and self.work_through(batch, stop):
                    self.note_done(batch)
                if not batch or time.monotonic() > self._commits_at:
                    self.commit_done()
            self.commit_done()
        finally:
            self.close()

    def join(self) -> None:
        """Subscribe. Partitions are assigned during a later poll."""
        self._member.join()

    def next_batch(self, at_most: float = POLL) -> list[Incoming]:
        """Return the messages that are available, at most KAFKA_BATCH_SIZE or the subscription's `batch`.

        Waits up to `at_most` seconds for the first one, and up to the subscription's `gathers` for the second."""
        first = self._consumer.poll(at_most)
        if first is None:
            return []
        messages = [first]
        most = min(settings.KAFKA_BATCH_SIZE, self.subscription.batch or settings.KAFKA_BATCH_SIZE)
        if self.subscription.gathers:
            messages += self._consumer.consume(min(1, most - 1), self.subscription.gathers)
        # With a timeout, consume() would wait until it has all of them or the time is over.
        messages += self._consumer.consume(most - len(messages), 0)
        batch = [as_incoming(message) for message in messages if not is_error_report(message)]
        self._held = {_partition_of(message) for message in batch} & self.partitions
        return batch

    def work_through(self, batch: Sequence[Incoming], stop: threading.Event) -> bool:
        """Retry the batch until it is handled and its answers and dead letters are published, however long that takes.

        Return False if the batch was abandoned because of `stop` or because all its partitions were revoked.
        """
        self._polls_from = time.monotonic() + UNPOLLED
        pauses = growing_pauses(first=FIRST_PAUSE, most=LONGEST_PAUSE)
        try:
            while batch:
                work = self._worker.submit(partial(self._processor.process, batch))
                if not self._has_ended(work, stop):
                    logger.warning("abandoned a batch of %d in order to stop; it will be read again", len(batch))
                    return False
                error = work.exception()
                if error is None:
                    return True
                if not is_transient(error):
                    raise error
                self._metrics.retried(batch)
                pause = max(next(pauses), error.retry_after if isinstance(error, TransientError) else 0.0)
                words = "a batch of %d is retried in %.1f s: %s"
                logger.warning(words, len(batch), pause, type_and_first_line(error), extra=traces_of(batch))
                if not self._has_waited(pause, stop):
                    return False
                # Messages of revoked partitions are another member's work now. Repeating it would only waste time.
                batch = [message for message in batch if _partition_of(message) in self._held]
            return False
        finally:
            self._resume()

    def note_done(self, batch: Sequence[Incoming]) -> None:
        """Record the offset to commit after this batch, for each of its partitions that is still assigned."""
        for message in batch:
            if (partition := _partition_of(message)) in self._held:
                self._done[partition] = max(self._done.get(partition, 0), message.offset + 1)

    def commit_done(self) -> None:
        """Commit finished offsets and check each partition's result. Keep those that fail transiently for later."""
        self._commits_at = time.monotonic() + COMMIT_EVERY
        if not self._done:
            return
        offsets = [TopicPartition(prefixed(topic), number, offset) for (topic, number), offset in self._done.items()]
        try:
            results = self._consumer.commit(offsets=offsets, asynchronous=False)
        except KafkaException as error:
            for partition in list(self._done):
                self._note_commit(partition, error.args[0])
        else:
            for result in results:
                self._note_commit(_known(result), result.error)

    def close(self) -> None:
        """Leave the group, so that other members get its partitions at once, and end the threads."""
        self._worker.stop(timeout=0.5)
        close_consumer(self._consumer)
        self._producer.close(timeout=0.5)

    # --- The group -------------------------------------------------------------------------------------------------

    def _on_assign(self, partitions: list[TopicPartition]) -> None:
        # The client remembers a pause across a revocation: a partition that left paused must not stay paused forever.
        (self._consumer.pause if self._is_paused else self._consumer.resume)(partitions)
        self.partitions = {_known(partition) for partition in partitions}
        logger.info("assigned partitions %s", _names(partitions))

    def _on_revoke(self, partitions: list[TopicPartition]) -> None:
        for partition in map(_known, partitions):
            self.partitions.discard(partition)
            self._held.discard(partition)
            self._done.pop(partition, None)
        logger.info("revoked partitions %s", _names(partitions))

    def _note_commit(self, partition: PartitionKey, error: KafkaError | None) -> None:
        if error is None or error.code() in _NOT_OURS_ANY_MORE:
            del self._done[partition]
        elif not is_transient_in_kafka(error):
            raise KafkaException(error)
        if error is not None:
            logger.warning("the offset of %s[%d] was not committed: %s", *partition, error.str())

    # --- While a batch is handled ----------------------------------------------------------------------------------

    def _has_ended(self, work: Future[None], stop: threading.Event) -> bool:
        """Wait until the work is done; False if STOPS_WITHIN has passed since a stop request."""
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
        """Wait for that many seconds; False if a stop request came."""
        until = time.monotonic() + seconds
        while not stop.is_set() and (left := until - time.monotonic()) > 0:
            self._heartbeat.beat()
            self._stand_by(stop.wait, left)
        return not stop.is_set()

    def _stand_by(self, wait_for: Callable[[float], object], at_most: float = POLL) -> None:
        """Wait briefly. Once the batch has taken longer than UNPOLLED, wait by polling, to remain a group member."""
        if time.monotonic() < self._polls_from:
            wait_for(min(POLL, at_most))
            return
        self._pause()
        message = self._consumer.poll(min(POLL, at_most))
        if message is not None and not is_error_report(message):
            # Paused partitions yield no messages. If one did, seek back so that it is not lost.
            read = as_incoming(message)
            self._consumer.seek(TopicPartition(prefixed(read.topic), read.partition, read.offset))

    def _pause(self) -> None:
        if not self._is_paused:
            self._consumer.pause(self._consumer.assignment())
            self._is_paused = True

    def _resume(self) -> None:
        if self._is_paused:
            self._consumer.resume(self._consumer.assignment())
            self._is_paused = False


def _partition_of(message: Incoming) -> PartitionKey:
    return message.topic, message.partition


def _known(partition: TopicPartition) -> PartitionKey:
    return unprefixed(partition.topic), partition.partition


def _names(partitions: Sequence[TopicPartition]) -> str:
    by_topic = groupby(sorted(map(_known, partitions)), key=itemgetter(0))
    return ", ".join(f"{topic}{[number for _, number in each]}" for topic, each in by_topic) or "none"
