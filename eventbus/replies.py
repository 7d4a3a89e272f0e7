"""Read the answers to this process's own requests: a topic from now on, without a consumer group."""

import time
from typing import Final, Self

from confluent_kafka import Consumer, TopicPartition

from eventbus.clients import prefixed, reader_config
from eventbus.incoming import as_incoming, is_error_report
from eventbus.messages import Incoming

# Timeout in seconds for the end offset of a partition.
ANSWERS_WITHIN: Final = 10.0
# Largest number of messages read at once.
CHUNK: Final = 100


class Replies:
    """Read all messages that arrive in a topic, in any partition, after the context is entered.

    Each partition's end offset is resolved on entry, so an answer to a request sent within the context is never missed.
    The reader commits nothing and joins no group, so two readers get the same messages.
    """

    def __init__(self, topic: str) -> None:
        self._topic = prefixed(topic)
        own: dict[str, object] = {
            "group.id": prefixed("replies"),
            "enable.auto.commit": False,
            # Prefetch limit for a slow reader, in kB. The default is 64 MB.
            "queued.max.messages.kbytes": 4096,
        }
        self._consumer = Consumer(reader_config(own))

    def __enter__(self) -> Self:
        """Start reading at the current ends. Raises a transient KafkaException while Kafka does not answer."""
        numbers = self._consumer.list_topics(self._topic, timeout=ANSWERS_WITHIN).topics[self._topic].partitions
        ends = [
            (number, self._consumer.get_watermark_offsets(TopicPartition(self._topic, number), ANSWERS_WITHIN)[1])
            for number in numbers
        ]
        self._consumer.assign([TopicPartition(self._topic, number, end) for number, end in ends])
        return self

    def __exit__(self, *_: object) -> None:
        self._consumer.close()

    def read(self, timeout: float) -> list[Incoming]:
        """Return the messages that have arrived; wait up to `timeout` seconds for the first."""
        deadline = time.monotonic() + timeout
        while (left := deadline - time.monotonic()) > 0:
            first = self._consumer.poll(left)
            if first is None:
                break
            messages = [first, *self._consumer.consume(CHUNK - 1, 0)]
            if read := [as_incoming(message) for message in messages if not is_error_report(message)]:
                return read
        return []
