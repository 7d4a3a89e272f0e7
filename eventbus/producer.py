"""Publishing to Kafka, from any thread."""

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from eventbus.clients import client_config, prefixed, unprefixed
from eventbus.errors import DeliveryError, TooLargeError, is_fatal
from eventbus.messages import Outgoing
from eventbus.metrics import PRODUCERS_REPLACED, UNDELIVERED
from eventbus.topics import DEAD_LETTER_MAX

logger = logging.getLogger(__name__)

# Seconds after which an unacknowledged message is given up. Whoever sent it sends it again, so a queue that kept the
# old ones as well would grow with every try.
GIVEN_UP_AFTER: Final = 10.0
# Messages that wait here for Kafka, some 20 MB: more than GIVEN_UP_AFTER's worth. What comes after that is refused by
# send() and waited with by send_all().
WAITING_MAX: Final = 20_000
# Seconds between two looks whether the local queue has room again.
ROOM_PAUSE: Final = 0.01
# Seconds between two replacements of a client that can do nothing any more: what ends it may last.
REPLACED_AFTER: Final = 5.0
# Seconds that the polling thread waits for reports at a time; close() waits for it.
POLL: Final = 0.2

Report = Callable[[KafkaError | None, Message], None]


class EventProducer:
    """Publishes with acks=all, without duplicates by the client's own retries, and a key's messages in their order.

    One per process is enough. It has a thread of its own, which close() ends. A client that Kafka has fenced or refused
    for good is replaced by the next send(); send_all() raises, because a role that waits for its answers is restarted.
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
        """How many messages of send() were not delivered, as far as is known."""
        return self._losses.count

    def send(self, message: Outgoing) -> bool:
        """Hands a message over and returns at once; False if it was not taken, as when the local queue is full.

        One that was taken may fail later: that is logged and counted, and the caller does not learn of it.
        """
        for is_last in (False, True):
            producer = self._producer
            try:
                self._produce(message, self._losses.report)
            except (BufferError, KafkaException) as error:
                if not is_last and _is_fatal_to_client(error) and self._replace(producer, error):
                    continue
                self._losses.add(message.topic, str(error))
                return False
            break
        return True

    def send_all(self, messages: Sequence[Outgoing], *, timeout: float) -> None:
        """Publishes the messages and returns when Kafka has acknowledged each of them.

        Raises DeliveryError when it has not within `timeout` seconds, TooLargeError when it never will take one as
        large as that, and KafkaException when this producer can do nothing any more.
        """
        self.begin_all(messages, timeout=timeout).wait()

    def begin_all(self, messages: Sequence[Outgoing], *, timeout: float) -> "Delivery":
        """Hands the messages over, for who has other work to do while Kafka takes them: waits for room in the local
        queue alone. Delivery.wait() is the rest of send_all(), and raises what that does."""
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
        """Waits up to `timeout` seconds until all is delivered; how many messages still were not."""
        self._closing.set()
        self._poller.join()
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
        """Makes another client in place of one that can do nothing any more. False: the last one was made just now."""
        with self._replacing:
            if self._producer is not failed:
                return True
            if time.monotonic() < self._replaced_at + REPLACED_AFTER:
                return False
            self._replaced_at = time.monotonic()
            logger.error("the producer can't go on and is replaced: %s", error)
            PRODUCERS_REPLACED.inc()
            self._producer = _new_producer()
        # Reports what it still holds as undelivered.
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
        while not self._closing.is_set():
            producer = self._producer
            try:
                producer.poll(POLL)
            except KafkaException as error:
                # The client raises a fatal error here as well, once: this thread must outlive it.
                self._replace(producer, error)
            self._losses.log()


def _new_producer() -> Producer:
    return Producer(
        client_config(
            {
                "acks": "all",
                "enable.idempotence": True,
                # Where Java's and Node's clients put a key, too.
                "partitioner": "murmur2_random",
                # Batches are made by who sends: to wait for more cost each of a sign-up's messages 1.2 ms.
                "linger.ms": 0,
                # A dead letter is larger than the message that it holds. Each topic has its own limit as well.
                "message.max.bytes": DEAD_LETTER_MAX,
                "message.timeout.ms": int(GIVEN_UP_AFTER * 1000),
                "queue.buffering.max.messages": WAITING_MAX,
            }
        )
    )


def _is_fatal_to_client(error: Exception) -> bool:
    return isinstance(error, KafkaException) and is_fatal(error.args[0])


class Delivery:
    """Messages on their way to Kafka, and what became of them."""

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
        # One step for the interpreter, so a report that comes now can't get between.
        return tuple(self._unacknowledged.values())

    def report(self, index: int, error: KafkaError | None, _: Message) -> None:
        """Called by the polling thread, once for each message."""
        if error is None:
            del self._unacknowledged[index]
        else:
            self._error = error
        self._unreported -= 1
        if self._unreported == 0:
            self._all_reported.set()

    def give_up(self, error: KafkaError) -> None:
        """Not all of them could be handed over."""
        self._error = error
        self._all_reported.set()

    def wait(self) -> None:
        """Returns when Kafka has acknowledged each. Raises as EventProducer.send_all() does."""
        self._all_reported.wait(max(0.0, self.deadline - time.monotonic()))
        if self._error is not None:
            raise _delivery_error(self.unacknowledged, self._error)
        if failed := self.unacknowledged:
            raise _not_delivered(failed, "no answer in time")


def _delivery_error(failed: Sequence[Outgoing], error: KafkaError) -> Exception:
    """What send_all() raises for what Kafka reported."""
    if is_fatal(error):
        return KafkaException(error)
    kind = TooLargeError if error.code() == KafkaError.MSG_SIZE_TOO_LARGE else DeliveryError
    return _not_delivered(failed, error.str(), kind)


def _not_delivered(
    messages: Sequence[Outgoing], reason: str, kind: type[DeliveryError] = DeliveryError
) -> DeliveryError:
    for message in messages:
        UNDELIVERED.labels(message.topic).inc()
    return kind(messages, reason)


class _Losses:
    """Counts what send() did not get delivered, and says so in one line for many."""

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
