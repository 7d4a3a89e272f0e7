"""Kafka as a test sees it, past the product's code: what is in a topic, and how far a group has read."""

import secrets
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from confluent_kafka import OFFSET_BEGINNING, Consumer, Message, Producer, TopicPartition
from django.conf import settings

from eventbus.consumer import BatchConsumer
from eventbus.messages import HandledBatch, Incoming, Subscription
from eventbus.topics import ensure_topics
from tests.waiting import eventually

PARTITIONS = 4


def new_topic() -> str:
    """A topic of the test's own, which is there."""
    name = f"test.{secrets.token_hex(6)}"
    ensure_topics([name])
    return name


def put(
    topic: str, *values: bytes | None, key: str | None = None, partition: int = -1, **headers: bytes | None
) -> None:
    """Puts messages into a topic, in this order, and returns when Kafka has them."""
    producer = Producer({"bootstrap.servers": settings.KAFKA_BOOTSTRAP_SERVERS, "log_level": 2})
    reports: list[object] = []
    for value in values:
        producer.produce(
            _full(topic),
            value,
            key=key,
            partition=partition,
            headers=list(headers.items()),
            on_delivery=lambda error, _: reports.append(error),
        )
    producer.flush(10)
    assert reports == [None] * len(values)


def read(topic: str, count: int, *, timeout: float = 10) -> list[Message]:
    """The first `count` messages of a topic, over all partitions; AssertionError if there are not so many in time."""
    with _reader() as consumer:
        consumer.assign([TopicPartition(_full(topic), number, OFFSET_BEGINNING) for number in range(PARTITIONS)])
        messages: list[Message] = []
        deadline = time.monotonic() + timeout
        while len(messages) < count:
            assert time.monotonic() < deadline, f"{len(messages)} of {count} messages in {topic}"
            messages += [message for message in consumer.consume(count - len(messages), 0.1) if not message.error()]
        return messages


def committed(subscription: Subscription) -> dict[int, int]:
    """Where the group of a subscription goes on, by partition; without those of which nothing is committed."""
    with _reader(subscription.group) as consumer:
        topic = _full(subscription.topic)
        places = consumer.committed([TopicPartition(topic, number) for number in range(PARTITIONS)], timeout=10)
        return {place.partition: place.offset for place in places if place.offset >= 0}


class RecordingHandler:
    """A handler that keeps what it got. `fail` is what it raises next, in turn; None in between means success."""

    def __init__(self, *failures: Exception | None) -> None:
        self.batches: list[list[Incoming]] = []
        self.tries: list[list[Incoming]] = []
        self.failures = list(failures)

    def __call__(self, batch: Sequence[Incoming]) -> HandledBatch:
        self.tries.append(list(batch))
        if self.failures and (failure := self.failures.pop(0)):
            raise failure
        self.batches.append(list(batch))
        return HandledBatch()

    @property
    def handled(self) -> list[Incoming]:
        return [message for batch in self.batches for message in batch]

    @property
    def values(self) -> list[bytes | None]:
        return [message.value for message in self.handled]


class RunningConsumer:
    """A BatchConsumer that runs in a thread."""

    def __init__(self, subscription: Subscription) -> None:
        self.consumer = BatchConsumer(subscription)
        self.error: Exception | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    @property
    def partitions(self) -> set[int]:
        return set(self.consumer.partitions)

    @property
    def is_running(self) -> bool:
        return self._thread.is_alive()

    def stop(self) -> float:
        """Stops it; how many seconds that took. Raises what it ended with."""
        began = time.monotonic()
        self._stop.set()
        self._thread.join(10)
        assert not self.is_running
        if self.error:
            raise self.error
        return time.monotonic() - began

    def _run(self) -> None:
        try:
            self.consumer.run(self._stop)
        except Exception as error:
            self.error = error


@contextmanager
def consuming(subscription: Subscription) -> Iterator[RunningConsumer]:
    """Runs a consumer of the subscription, which has partitions when the block begins."""
    running = RunningConsumer(subscription)
    try:
        eventually(lambda: running.partitions or running.error, 15, what="partitions assigned")
        yield running
    finally:
        running.stop()


@contextmanager
def _reader(group: str = "reader") -> Iterator[Consumer]:
    consumer = Consumer(
        {
            "bootstrap.servers": settings.KAFKA_BOOTSTRAP_SERVERS,
            "group.id": _full(group),
            "enable.auto.commit": False,
            "fetch.wait.max.ms": 5,
            "log_level": 2,
        }
    )
    try:
        yield consumer
    finally:
        consumer.close()


def _full(name: str) -> str:
    return f"{settings.KAFKA_PREFIX}{name}"
