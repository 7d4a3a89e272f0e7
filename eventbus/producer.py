"""Publishing to Kafka, from any thread."""

import logging
import threading
import time
from collections.abc import Sequence
from typing import Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from eventbus.clients import client_config, prefixed
from eventbus.errors import DeliveryError, is_fatal
from eventbus.messages import Outgoing

logger = logging.getLogger(__name__)

# Seconds after which an unacknowledged message is given up: whoever sent it sends it again, and a queue that kept the
# old ones as well would grow with every try.
GIVEN_UP_AFTER: Final = 10.0
# Seconds between two looks whether the local queue has room again.
ROOM_PAUSE: Final = 0.01
# Seconds that the polling thread waits for reports at a time; close() waits for it.
POLL: Final = 0.2


class EventProducer:
    """Publishes with acks=all, without duplicates by the client's own retries, and a key's messages in their order.

    One per process is enough. It has a thread of its own, which close() ends.
    """

    def __init__(self) -> None:
        self._producer = Producer(
            client_config(
                {
                    "acks": "all",
                    "enable.idempotence": True,
                    # Where Java's and Node's clients put a key, too.
                    "partitioner": "murmur2_random",
                    "linger.ms": 1,
                    "message.timeout.ms": int(GIVEN_UP_AFTER * 1000),
                }
            )
        )
        self._losses = _Losses()
        self._closing = threading.Event()
        self._poller = threading.Thread(target=self._poll, name="kafka-producer", daemon=True)
        self._poller.start()

    @property
    def lost(self) -> int:
        """How many messages of send() were not delivered, as far as is known."""
        return self._losses.count

    def send(self, message: Outgoing) -> bool:
        """Hands a message over and returns at once; False if it was not taken, because the local queue is full.

        One that was taken may fail later: that is logged and counted, and the caller learns nothing of it.
        """
        try:
            self._produce(message, self._losses)
        except (BufferError, KafkaException) as error:
            self._losses.add(message.topic, str(error))
            return False
        return True

    def send_all(self, messages: Sequence[Outgoing], *, timeout: float) -> None:
        """Publishes the messages and returns when Kafka has acknowledged each of them.

        Raises DeliveryError with those that it has not within `timeout` seconds, and KafkaException when this producer
        can do nothing any more.
        """
        deadline = time.monotonic() + timeout
        receipts = [_Receipt() for _ in messages]
        try:
            for message, receipt in zip(messages, receipts, strict=True):
                self._produce_when_there_is_room(message, receipt, deadline)
        except (BufferError, KafkaException) as error:
            _raise_if_fatal(error)
            reason = str(error)
        else:
            reason = f"not within {timeout:g} s"
        for receipt in receipts:
            # What was not even taken gets no report; nothing is worth waiting for then.
            receipt.came.wait(max(0.0, deadline - time.monotonic()) if receipt.is_due else 0)
        failed = [message for message, receipt in zip(messages, receipts, strict=True) if not receipt.is_good]
        if failed:
            errors = [receipt.error for receipt in receipts if receipt.error]
            raise DeliveryError(failed, errors[0].str() if errors else reason)

    def close(self, timeout: float) -> int:
        """Waits up to `timeout` seconds until all is delivered; how many messages still were not."""
        self._closing.set()
        self._poller.join()
        unsent: int = self._producer.flush(timeout)
        self._losses.log()
        return unsent
