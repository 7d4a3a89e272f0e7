"""Reading what is answered to this process's own questions: a topic from now on, without a group."""

import time
from types import TracebackType
from typing import Final, Self

from confluent_kafka import Consumer, TopicPartition

from eventbus.clients import prefixed, reader_config
from eventbus.incoming import as_incoming, is_error_report
from eventbus.messages import Incoming

# Seconds that Kafka may take to say where a partition ends.
ANSWERS_WITHIN: Final = 10.0
# Messages in hand at a time.
CHUNK: Final = 100


class Replies:
    """What comes into a topic, in all its partitions, from the moment when the context begins.

    Where each partition ends is asked for before it is read, so an answer to what is sent within the context is never
    missed. Nothing is committed and no group is joined: two such readers get the same.
    """

    def __init__(self, topic: str) -> None:
        self._topic = prefixed(topic)
        own: dict[str, object] = {
            "group.id": prefixed("replies"),
            "enable.auto.commit": False,
            # Answers that are fetched ahead of a slow reader, in kB: by default as much as 64 MB.
            "queued.max.messages.kbytes": 4096,
        }
        self._consumer = Consumer(reader_config(own))

    def __enter__(self) -> Self:
        """Raises a transient KafkaException while Kafka does not answer."""
        numbers = self._consumer.list_topics(self._topic, timeout=ANSWERS_WITHIN).topics[self._topic].partitions
        ends = [
            (number, self._consumer.get_watermark_offsets(TopicPartition(self._topic, number), ANSWERS_WITHIN)[1])
            for number in numbers
        ]
        self._consumer.assign([TopicPartition(self._topic, number, end) for number, end in ends])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._consumer.close()

    def read(self, timeout: float) -> list[Incoming]:
        """What has come; the first message is waited for, for `timeout` seconds at most."""
        deadline = time.monotonic() + timeout
        while (left := deadline - time.monotonic()) > 0:
            first = self._consumer.poll(left)
            if first is None:
                break
            messages = [first, *self._consumer.consume(CHUNK - 1, 0)]
            if read := [as_incoming(message) for message in messages if not is_error_report(message)]:
                return read
        return []
