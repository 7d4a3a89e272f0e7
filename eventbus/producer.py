"""Publish to Kafka from any thread."""

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from eventbus.clients import client_config, is_stranded, prefixed, unprefixed
from eventbus.errors import DeliveryError, StrandedError, TooLargeError, is_fatal
from eventbus.messages import Outgoing
from eventbus.metrics import PRODUCERS_REPLACED, UNDELIVERED
from eventbus.topics import DEAD_LETTER_MAX

logger = logging.getLogger(__name__)

# Seconds after which an unacknowledged message is dropped. Its sender retries, so a queue that also kept the old copies
# would grow with every attempt.
GIVEN_UP_AFTER: Final = 10.0
# Capacity of the local queue in messages (some 20 MB): more than are sent within GIVEN_UP_AFTER. When it is full,
# send() refuses a message and send_all() waits for room.
WAITING_MAX: Final = 20_000
# Seconds between two checks whether the local queue has room again.
ROOM_PAUSE: Final = 0.01
# Minimum seconds between two replacements of a client after a fatal error, whose cause may persist.
REPLACED_AFTER: Final = 5.0
# Seconds for which messages are waiting before the producer checks whether its client still reaches Kafka.
STALLED_AFTER: Final = 3.0
# Seconds for which the polling thread waits for delivery reports at a time. close() may wait as long.
POLL: Final = 0.2

Report = Callable[[KafkaError | None, Message], None]


class EventProducer:
    """Publish with acks=all, without duplicates from the client's retries, and in order for each key.

    One producer per process is enough. It runs a thread, which close() ends. After a fatal error, such as being fenced,
    the next send() replaces the client; send_all() raises, because a role that depends on its answers gets restarted.
    The thread replaces a client that has lost Kafka for good (eventbus.clients.is_stranded).
    """

    def __init__(self) -> None:
        self._producer = _new_producer()
        self._replacing = threading.Lock()
        self._replaced_at = -math.inf
        self._losses = _Losses()
        self._closing = threading.Event()
        self._poller = threading.Thread(target=self._poll, name="kafka-producer", daemon=True)
        self._poller.start()

    @property
    def lost(self) -> int:
        """Number of messages passed to send() that are known to be undelivered."""
        return self._losses.count

    def send(self, message: Outgoing) -> bool:
        """Queue a message and return at once; False if it was refused, for example because the local queue is full.

        A queued message may fail later. The failure is logged and counted, but not reported to the caller.
        """
        for is_last in (False, True):
            producer = self._producer
            try:
                self._produce(message, self._losses.report)
            except (BufferError, KafkaException) as error:
                is_unusable = isinstance(error, KafkaException) and is_fatal(error.args[0])
                if not is_last and is_unusable and self._replace(producer, error):
                    continue
                self._losses.add(message.topic, str(error))
                return False
            break
        return True

    def send_all(self, messages: Sequence[Outgoing], *, timeout: float) -> None:
        """Publish the messages and return when Kafka has acknowledged every one.

        Raises DeliveryError if it has not within `timeout` seconds, TooLargeError if a message exceeds the size limit,
        and KafkaException after a fatal error of this producer.
        """
        self.begin_all(messages, timeout=timeout).wait()

    def begin_all(self, messages: Sequence[Outgoing], *, timeout: float) -> "Delivery":
        """Queue the messages, waiting only for room in the local queue, so that the caller can work in the meantime.

        Delivery.wait() does the rest of send_all() and raises the same errors."""
        delivery = Delivery(messages, deadline=time.monotonic() + timeout)
        try:
            for index, message in enumerate(messages):
                self._produce_when_there_is_room(message, partial(delivery.report, index), delivery.deadline)
        except BufferError:
            delivery.give_up(KafkaError(KafkaError._QUEUE_FULL))
        except KafkaException as error:
            delivery.give_up(error.args[0])
        return delivery

    def close(self, timeout: float) -> int:
        """Wait up to `timeout` seconds for pending deliveries; return how many messages are still undelivered."""
        self._closing.set()
        # It may be asking whether the client is stranded.
        self._poller.join(2 * POLL)
        unsent = self._producer.flush(timeout)
        self._losses.log()
        return unsent

    def _produce(self, message: Outgoing, report: Report) -> None:
        self._producer.produce(
            prefixed(message.topic),
            key=message.key,
            value=message.value,
            headers=list(message.headers),
            on_delivery=report,
        )

    def _replace(self, failed: Producer, error: Exception) -> bool:
        """Replace an unusable client; False if the last replacement was less than REPLACED_AFTER ago."""
        with self._replacing:
            if self._producer is not failed:
                return True
            if time.monotonic() < self._replaced_at + REPLACED_AFTER:
                return False
            self._replaced_at = time.monotonic()
            logger.error("replacing the producer: %s", error)
            PRODUCERS_REPLACED.inc()
            self._producer = _new_producer()
        # Report the messages still in its queue as undelivered.
        failed.purge()
        with suppress(KafkaException):
            failed.poll(0)
        return True

    def _produce_when_there_is_room(self, message: Outgoing, report: Report, deadline: float) -> None:
        while True:
            try:
                self._produce(message, report)
            except BufferError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(ROOM_PAUSE)
            else:
                return

    def _poll(self) -> None:
        checks_at = time.monotonic() + STALLED_AFTER
        while not self._closing.is_set():
            producer = self._producer
            try:
                producer.poll(POLL)
            except KafkaException as error:
                # The client also raises a fatal error here, once. This thread must survive it.
                self._replace(producer, error)
            if not len(producer):
                checks_at = time.monotonic() + STALLED_AFTER
            elif time.monotonic() > checks_at:
                if is_stranded(producer, self._closing):
                    self._replace(producer, StrandedError())
                checks_at = time.monotonic() + STALLED_AFTER
            self._losses.log()


def _new_producer() -> Producer:
    return Producer(
        client_config(
            {
                "acks": "all",
                "enable.idempotence": True,
                # Places a key in the same partition as the Java and Node clients do.
                "partitioner": "murmur2_random",
                # Callers send in batches already; lingering cost each of a sign-up's messages 1.2 ms.
                "linger.ms": 0,
                # A dead letter is larger than its message. Each topic has a limit as well.
                "message.max.bytes": DEAD_LETTER_MAX,
                "message.timeout.ms": int(GIVEN_UP_AFTER * 1000),
                "queue.buffering.max.messages": WAITING_MAX,
            }
        )
    )


class Delivery:
    """Messages in flight to Kafka, and their results."""

    def __init__(self, messages: Sequence[Outgoing], *, deadline: float) -> None:
        self.deadline = deadline
        self._unacknowledged = dict(enumerate(messages))
        self._unreported = len(messages)
        self._error: KafkaError | None = None
        self._all_reported = threading.Event()
        if not messages:
            self._all_reported.set()

    @property
    def unacknowledged(self) -> Sequence[Outgoing]:
        # tuple() copies atomically under the GIL, so a concurrent report can't interfere.
        return tuple(self._unacknowledged.values())

    def report(self, index: int, error: KafkaError | None, _: Message) -> None:
        """Record one message's result. The polling thread calls this once for each message."""
        if error is None:
            del self._unacknowledged[index]
        else:
            self._error = error
        self._unreported -= 1
        if self._unreported == 0:
            self._all_reported.set()

    def give_up(self, error: KafkaError) -> None:
        """Record that not all messages could be queued."""
        self._error = error
        self._all_reported.set()

    def wait(self) -> None:
        """Return when Kafka has acknowledged every message. Raises the errors of EventProducer.send_all()."""
        self._all_reported.wait(max(0.0, self.deadline - time.monotonic()))
        failed, error = self.unacknowledged, self._error
        if error is not None and is_fatal(error):
            raise KafkaException(error)
        for message in failed:
            UNDELIVERED.labels(message.topic).inc()
        if error is not None and error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
            raise TooLargeError(failed, error.str())
        if failed or error is not None:
            raise DeliveryError(failed, "no answer in time" if error is None else error.str())


class _Losses:
    """Count the undelivered messages of send(), and log them in one line for many."""

    def __init__(self) -> None:
        self.count = 0
        self._said = 0
        self._last = ""
        self._lock = threading.Lock()

    def report(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self.add(unprefixed(message.topic() or ""), error.str())

    def add(self, topic: str, reason: str) -> None:
        UNDELIVERED.labels(topic).inc()
        with self._lock:
            self.count += 1
            self._last = f"{topic}: {reason}"

    def log(self) -> None:
        with self._lock:
            new, self._said = self.count - self._said, self.count
        if new:
            logger.warning("%d messages were not delivered to Kafka, the last to %s", new, self._last)
