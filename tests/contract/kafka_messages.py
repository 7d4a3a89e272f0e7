"""Validation of every Kafka message of a test run against docs/asyncapi.yaml.

While pytest runs, tests/plugin.py and tests/stack.py register each broker that they start. Every few seconds, between
two tests, the messages that are new on its topics are read and validated, whoever published them. A test that publishes
an invalid message on purpose declares it with `is_meant`.
"""

import json
import re
import socket
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from operator import methodcaller
from typing import Any

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]
from jsonschema import ValidationError

from tests.contract.documents import check_event_message, document

# Timeouts in seconds for one request to a broker, and for reading what is new on it.
ANSWERS_WITHIN = 5.0
READ_WITHIN = 60.0
# Seconds between two readings.
EVERY = 2.0
# Readings without a new message after which a topic counts as quiet. Asking for the ends of all topics of tests that
# have ended took a third of a reading's time, and more the longer a run lasted.
QUIET_AFTER = 3
# Messages that are fetched at a time.
BATCH = 500
# The longest part of an offending message that a report shows, in characters.
SHOWN = 600

Value = bytes | None
_meant: set[tuple[str, Value]] = set()


def is_meant(topic: str, value: Value) -> None:
    """Declare that a test publishes an invalid message on purpose. `topic` is without a prefix.

    Copies of it count as well, such as those of a replayed dead letter."""
    _meant.add((topic, value))


@cache
def message_name(topic: str) -> str | None:
    """Return the name in asyncapi.yaml of the messages of a topic, which may have a prefix; None for other topics."""
    return next((name for pattern, name in _patterns() if pattern.search(topic)), None)


@cache
def bare(topic: str) -> str:
    """Return the name of a topic without its prefix, if it is one of the contract."""
    found = (match["name"] for pattern, _ in _patterns() if (match := pattern.search(topic)))
    return next(found, topic)


@cache
def _patterns() -> list[tuple[re.Pattern[str], str]]:
    """Return a pattern for the topics of each Kafka channel, with the name of the channel's messages."""
    patterns = []
    for channel in document("asyncapi.yaml")["channels"].values():
        if not channel["address"].startswith("/"):
            address = channel["address"].replace(".", r"\.")
            for name, parameter in channel.get("parameters", {}).items():
                values = "|".join(parameter.get("enum", [r"[\w-]+"]))
                address = address.replace(f"{{{name}}}", f"({values})")
            patterns.append((re.compile(rf"(^|[^a-zA-Z])(?P<name>{address})$"), next(iter(channel["messages"]))))
    return patterns


def problem_with(topic: str, value: Value, headers: Mapping[str, Value]) -> str | None:
    """Return why a message does not fit the contract of its topic; None if it does or was declared with `is_meant`."""
    name = message_name(topic)
    if name is None or (bare(topic), value) in _meant:
        return None
    try:
        told = {header: (text or b"").decode(errors="backslashreplace") for header, text in headers.items()}
        check_event_message(name, told, None if name == "deadLetter" else json.loads(value or b""))
    except ValidationError as error:
        return f"{error.message[:SHOWN]} (at {error.json_path})"
    except (ValueError, AssertionError) as error:
        return str(error)
    return None


def validate(topic: str, partition: int, offset: int, headers: Mapping[str, Value], value: Value) -> Iterator[str]:
    """Count a message that a test run has read, and yield what is wrong with it."""
    figures.messages += 1
    if problem := problem_with(topic, value, headers):
        place = f"{topic}[{partition}] at {offset}"
        yield f"{place}: {problem}\n  headers: {dict(headers)}\n  value: {(value or b'')[:SHOWN]!r}"


@dataclass
class Figures:
    """What the run has validated so far; the report's last lines have them. `seconds` are of wall-clock time."""

    messages: int = 0
    seconds: float = 0.0
    unread: list[str] = field(default_factory=list)
    read_at: float = 0.0


figures = Figures()


class BrokerReader:
    """Reads the topics of the contract on one broker, each message once."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        quiet = {**config, "log_level": 0, "error_cb": lambda _: None}
        self.address = str(config["bootstrap.servers"])
        self._admin = AdminClient(quiet)
        self._consumer = Consumer(
            {
                **quiet,
                "group.id": "contract",
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "auto.offset.reset": "earliest",
                "fetch.wait.max.ms": 5,
            }
        )
        self._read: dict[tuple[str, int], int] = {}
        self._idle: Counter[str] = Counter()

    def close(self) -> None:
        self._consumer.close()

    def new_problems(self, *, quiet_topics: bool = True) -> list[str]:
        """Validate the messages since the last call, those of quiet topics only if asked to. Raises KafkaException or
        OSError if the broker does not answer."""
        began = time.monotonic()
        try:
            return list(self._problems(quiet_topics=quiet_topics))
        finally:
            figures.seconds += time.monotonic() - began

    def _problems(self, *, quiet_topics: bool) -> Iterator[str]:
        for message in self._new_messages(quiet_topics=quiet_topics):
            topic, partition, offset = str(message.topic()), message.partition() or 0, message.offset() or 0
            yield from validate(topic, partition, offset, _headers_of(message), message.value())

    def _new_messages(self, *, quiet_topics: bool) -> Iterator[Message]:
        told = self._ends(quiet_topics=quiet_topics)
        ends = {place: end for place, end in told.items() if end > self._read.get(place, 0)}
        self._idle.update({topic for topic, _ in told})
        for topic, _ in ends:
            del self._idle[topic]
        if not ends:
            return
        self._consumer.assign([TopicPartition(*place, self._read.get(place, 0)) for place in ends])
        deadline = time.monotonic() + READ_WITHIN
        try:
            while ends:
                if time.monotonic() > deadline:
                    raise AssertionError(f"{self.address} did not return its messages up to {ends}")
                left = sum(end - self._read.get(place, 0) for place, end in ends.items())
                for message in self._consumer.consume(min(left, BATCH), 0.1):
                    if not message.error():
                        yield message
                        place = (str(message.topic()), message.partition() or 0)
                        self._read[place] = (message.offset() or 0) + 1
                        if self._read[place] >= ends.get(place, 0):
                            ends.pop(place, None)
        finally:
            self._consumer.unassign()

    def _ends(self, *, quiet_topics: bool) -> dict[tuple[str, int], int]:
        # A client waits for its whole timeout when nothing listens; a connection is refused at once.
        host, port = self.address.partition(",")[0].rsplit(":", 1)
        socket.create_connection((host, int(port)), timeout=ANSWERS_WITHIN).close()
        topics = self._admin.list_topics(timeout=ANSWERS_WITHIN).topics
        latest: Any = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        asked = {
            TopicPartition(name, partition): latest
            for name, topic in topics.items()
            if message_name(name) and (quiet_topics or self._idle[name] < QUIET_AFTER)
            for partition in topic.partitions
        }
        if not asked:
            return {}
        told = self._admin.list_offsets(asked, request_timeout=ANSWERS_WITHIN)
        return {(place.topic, place.partition): future.result().offset for place, future in told.items()}


def _headers_of(message: Message) -> dict[str, Value]:
    with suppress(SystemError, UnicodeError):  # A name that is not UTF-8 raises only in a call from C.
        return dict(methodcaller("headers")(message) or [])
    return {}


_readers: dict[str, BrokerReader] = {}
_is_on = False


def validate_all() -> None:
    """Validate the messages of every broker that is registered from now on. Benchmarks don't."""
    global _is_on
    _is_on = True


@contextmanager
def validated(config: Mapping[str, Any]) -> Iterator[None]:
    """Register a broker, which `config` reaches, while the context is open; then validate what it still has."""
    address = str(config["bootstrap.servers"])
    if not _is_on:
        yield
        return
    if address in _readers:
        yield
        raise_for(problems_on([_readers[address]]))
        return
    reader = _readers[address] = BrokerReader(config)
    try:
        yield
        raise_for(problems_on([reader], is_last=True))
    finally:
        del _readers[address]
        reader.close()


def is_due() -> bool:
    """Whether the brokers have not been read for EVERY seconds. Most tests are shorter, and publish little."""
    return time.monotonic() - figures.read_at > EVERY


def problems_on(
    readers: Iterable[BrokerReader] | None = None, *, quiet_topics: bool = True, is_last: bool = False
) -> list[str]:
    """Return what is wrong with the new messages of these brokers, or of all; with those of quiet topics only if asked.
    A broker that does not answer is read later; at `is_last`, the run's report says that it was not."""
    problems: list[str] = []
    figures.read_at = time.monotonic()
    for reader in list(_readers.values()) if readers is None else readers:
        try:
            problems += reader.new_problems(quiet_topics=quiet_topics)
        except (KafkaException, OSError) as error:
            if is_last:
                figures.unread.append(f"{reader.address}: {error}")
    return problems


def raise_for(problems: list[str]) -> None:
    if problems:
        shown = "\n".join(problems[:5])
        raise AssertionError(f"{len(problems)} messages do not fit docs/asyncapi.yaml:\n{shown}")
