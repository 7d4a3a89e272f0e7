"""Direct access to Kafka for tests, without the product's code: the messages of a topic, and a group's offsets."""

import ctypes
import secrets
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, repeat
from pathlib import Path

import confluent_kafka
from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_INVALID,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType
from django.conf import settings

from eventbus.consumer import BatchConsumer
from eventbus.group_member import run_reader
from eventbus.inspection.inspector import Inspector
from eventbus.messages import HandledBatch, Incoming, Subscription
from eventbus.topics import ensure_topics
from tests.contract.kafka_messages import is_meant
from tests.waiting import PATIENCE, eventually

PARTITIONS = 4
# The largest message (bytes) that a test sends; by default, a topic accepts 1 MB.
LARGEST = 10_000_000


def make_topics(names: Iterable[str]) -> None:
    """Create topics, and wait until the leaders of their partitions answer: Kafka lists a topic a moment earlier."""
    made = list(names)
    ensure_topics(made)
    with Inspector() as inspector:
        eventually(lambda: not any(each.problem for name in made for each in inspector.topic(name).partitions))


def new_topic() -> str:
    """Create a topic for one test, and return its name."""
    name = f"test.{secrets.token_hex(6)}"
    ensure_topics([name])
    return name


def let_take(topic: str, size: int) -> None:
    """Limit the messages of a topic of real Kafka to so many bytes."""
    configure(topic, "max.message.bytes", str(size))


def configure(topic: str, name: str, value: str) -> None:
    """Set an option of a topic of real Kafka, and wait until it is in effect."""
    change = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, _full(topic), incremental_configs=[change])
    admin = AdminClient({"bootstrap.servers": settings.KAFKA_BOOTSTRAP_SERVERS})
    admin.incremental_alter_configs([resource])[resource].result(10)
    asked = ConfigResource(ResourceType.TOPIC, _full(topic))

    def is_in_effect() -> bool:
        return admin.describe_configs([asked])[asked].result(10)[name].value == value

    eventually(is_in_effect, what=f"{topic} has {name}={value}")


def put(
    topic: str,
    *values: bytes | None,
    key: str | None = None,
    partition: int = -1,
    timestamp_ms: int = 0,
    **headers: bytes | None,
) -> None:
    """Write messages to a topic, in this order, and wait until Kafka has acknowledged them. They may be large if the
    topic accepts them, and need not fit the topic's contract. `timestamp_ms` is their time, or 0 for now."""
    servers = {"bootstrap.servers": settings.KAFKA_BOOTSTRAP_SERVERS, "log_level": 2}
    producer = Producer({**servers, "message.max.bytes": LARGEST})
    reports: list[object] = []
    for value in values:
        is_meant(topic, value)
        producer.produce(
            _full(topic),
            value,
            key=key,
            partition=partition,
            timestamp=timestamp_ms,
            headers=list(headers.items()),
            on_delivery=lambda error, _: reports.append(error),
        )
    producer.flush(PATIENCE)
    assert [str(error) for error in reports] == ["None"] * len(values), reports


def put_with_unreadable_header(topic: str, value: bytes) -> None:
    """Write a message with a header whose name is not UTF-8, which confluent-kafka's producer can't do."""
    is_meant(topic, value)
    package = Path(confluent_kafka.__file__).parent
    [library] = package.with_name("confluent_kafka.libs").glob("librdkafka-*")
    rdkafka = ctypes.CDLL(str(library))
    pointer, size = ctypes.c_void_p, ctypes.c_size_t
    for name in ("rd_kafka_conf_new", "rd_kafka_new", "rd_kafka_headers_new"):
        getattr(rdkafka, name).restype = pointer
    error = ctypes.create_string_buffer(512)
    configuration = pointer(rdkafka.rd_kafka_conf_new())
    servers = settings.KAFKA_BOOTSTRAP_SERVERS.encode()
    rdkafka.rd_kafka_conf_set(configuration, b"bootstrap.servers", servers, error, size(512))
    producer = pointer(rdkafka.rd_kafka_new(0, configuration, error, size(512)))
    headers = pointer(rdkafka.rd_kafka_headers_new(size(1)))
    rdkafka.rd_kafka_header_add(headers, b"\xff\xfe", ctypes.c_ssize_t(2), b"v", ctypes.c_ssize_t(1))
    # The tags of rd_kafka_vtype_t: topic 1, partition 3, value 4, flags 7 (2: copy the value), headers 10, end 0.
    partition, length = ctypes.c_int32(0), size(len(value))
    sent = rdkafka.rd_kafka_producev(
        producer, 1, _full(topic).encode(), 3, partition, 4, value, length, 7, 2, 10, headers, 0
    )
    assert sent == 0
    assert rdkafka.rd_kafka_flush(producer, 30_000) == 0
    rdkafka.rd_kafka_destroy(producer)


def break_for_good(producer: Producer) -> None:
    """Trigger a fatal error in a client of confluent-kafka, with librdkafka's hook for tests."""
    package = Path(confluent_kafka.__file__).parent
    [library] = package.with_name("confluent_kafka.libs").glob("librdkafka-*")
    rdkafka = ctypes.CDLL(str(library))
    # The first member of confluent-kafka's object, after Python's own two.
    handle = ctypes.c_void_p.from_address(id(producer) + 2 * ctypes.sizeof(ctypes.c_void_p))
    assert rdkafka.rd_kafka_test_fatal_error(handle, KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER, b"broken by a test") == 0


def read(topic: str, count: int, *, timeout: float = PATIENCE) -> list[Message]:
    """Return the first `count` messages of a topic, over all partitions. Raises AssertionError on timeout."""
    with _reader() as consumer:
        consumer.assign(_partitions(topic, OFFSET_BEGINNING))
        messages: list[Message] = []
        deadline = time.monotonic() + timeout
        while len(messages) < count:
            assert time.monotonic() < deadline, f"{len(messages)} of {count} messages in {topic}"
            messages += [message for message in consumer.consume(count - len(messages), 0.1) if not message.error()]
        return messages


def read_all(topic: str) -> list[Message]:
    """Return the current messages of a topic, over all partitions."""
    with _reader() as consumer:
        ends = [consumer.get_watermark_offsets(partition, timeout=PATIENCE) for partition in _partitions(topic)]
    return read(topic, sum(high - low for low, high in ends))


def committed(subscription: Subscription) -> dict[int, int]:
    """Return the committed offsets of a subscription's group, by partition, for partitions that have one."""
    with _reader(subscription.group) as consumer:
        try:
            places = consumer.committed(_partitions(subscription.topics[0]), timeout=PATIENCE)
        except KafkaException as error:
            # Kafka has just come back; `eventually` tries again.
            raise AssertionError(f"Kafka does not say where the group is: {error}") from error
        return {place.partition: place.offset for place in places if place.offset >= 0}


def skip_to_the_end(topic: str, *, group: str) -> None:
    """Commit the end offsets of a topic for a group without members."""
    with _reader(group) as consumer:
        partitions = _partitions(topic)
        ends = [consumer.get_watermark_offsets(partition, timeout=PATIENCE)[1] for partition in partitions]
        for partition, end in zip(partitions, ends, strict=True):
            partition.offset = end
        consumer.commit(offsets=partitions, asynchronous=False)


class RecordingHandler:
    """A handler that records its batches. It raises the given failures in turn; None in between means success."""

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
    """A BatchConsumer in a thread, which replaces it as a role does if it has lost Kafka for good (docs/adr/0081)."""

    def __init__(self, subscription: Subscription) -> None:
        self.consumer = BatchConsumer(subscription)
        self._consumers = chain([self.consumer], map(BatchConsumer, repeat(subscription)))
        self.error: Exception | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    @property
    def partitions(self) -> set[int]:
        return {number for _, number in self.consumer.partitions}

    @property
    def is_running(self) -> bool:
        return self._thread.is_alive()

    def stop(self) -> float:
        """Stop it, and return the seconds that it took. Raises the error with which it ended."""
        began = time.monotonic()
        self._stop.set()
        self._thread.join(PATIENCE)
        assert not self.is_running
        if self.error:
            raise self.error
        return time.monotonic() - began

    def _run(self) -> None:
        try:
            run_reader(self._next_consumer, self._stop)
        except Exception as error:
            self.error = error

    def _next_consumer(self) -> BatchConsumer:
        self.consumer = next(self._consumers)
        return self.consumer


@contextmanager
def consuming(subscription: Subscription) -> Iterator[RunningConsumer]:
    """Run a consumer of the subscription, which has been assigned partitions when the block begins."""
    running = RunningConsumer(subscription)
    try:
        eventually(lambda: running.partitions or running.error, 60, what="partitions assigned")
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


def _partitions(topic: str, offset: int = OFFSET_INVALID) -> list[TopicPartition]:
    return [TopicPartition(_full(topic), number, offset) for number in range(PARTITIONS)]


def _full(name: str) -> str:
    return f"{settings.KAFKA_PREFIX}{name}"
