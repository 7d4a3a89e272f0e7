"""Messages as Kafka carries them, whatever their meaning: incoming, outgoing, and dead letters."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, TypeVar

import msgspec
from uuid_utils.compat import uuid7

from eventbus.clients import prefixed
from eventbus.topics import DEAD_LETTER_SUFFIX, MESSAGE_MAX, dead_letter_topic
from runtime.errors import PermanentError

T = TypeVar("T")
Header = tuple[str, bytes | None]

# Default for the largest value, in bytes, that is decoded. An event about one user has a few hundred.
VALUE_MAX: Final = 16 * 1024
# Bytes that are kept of an oversized message, and of one whose dead-letter topic has the limit of ordinary topics.
CUT_VALUE_MAX: Final = 900_000
CUT_KEY_MAX: Final = 10_000
CUT_HEADERS_MAX: Final = 50_000
# Maximum overhead of a header in bytes: Kafka prefixes its name and its value with their lengths.
HEADER_COST: Final = 10
ERROR_TEXT_MAX: Final = 2_000
# Prefix of the headers that a dead letter adds to those of its message.
DEAD_LETTER_PREFIX: Final = "dlt-"


_encoder: Final = msgspec.json.Encoder()
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
# Milliseconds since the epoch of the first and last days that datetime can represent in every time zone.
_FIRST_MOMENT: Final = -62_135_510_400_000
_LAST_MOMENT: Final = 253_402_214_400_000


def moment_of(milliseconds: int | None) -> datetime | None:
    """Return a Kafka timestamp as a datetime; None if there is none or datetime can't represent it.

    Publishers choose their timestamps, so any number may come."""
    if milliseconds is None or not _FIRST_MOMENT <= milliseconds <= _LAST_MOMENT:
        return None
    return _EPOCH + timedelta(milliseconds=milliseconds)


@dataclass(frozen=True, slots=True)
class Incoming:
    """A message as read from Kafka. `topic` is without KAFKA_PREFIX; `timestamp_ms` is Unix time in milliseconds."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[Header, ...] = ()
    timestamp_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to publish. `topic` is without KAFKA_PREFIX."""

    topic: str
    key: str | bytes | None
    value: bytes | None
    headers: tuple[Header, ...] = ()


# A message to dead-letter, and the error that caused it.
Rejected = tuple[Incoming, Exception]


@dataclass(frozen=True, slots=True)
class HandledBatch:
    """The result of a batch: answers to publish before its offsets are committed, and messages to dead-letter."""

    answers: Sequence[Outgoing] = ()
    rejected: Sequence[Rejected] = ()


# Handles a batch. Its database writes are committed when it returns. After any failure the same messages come again
# (at-least-once delivery), so a handler must be idempotent.
Handler = Callable[[Sequence[Incoming]], HandledBatch]


@dataclass(frozen=True)
class Subscription:
    """One consumer group's subscription. `answers_to` lists the topics that its handler publishes to.

    A batch may contain messages of all `topics`. Kafka keeps their order only within a partition of one topic.

    After the first message of a batch the consumer waits up to `gathers` seconds for a second one, for topics whose
    messages usually come in pairs."""

    group: str
    topics: tuple[str, ...]
    handle: Handler
    answers_to: tuple[str, ...] = ()
    gathers: float = 0.0
    # The maximum number of messages in a batch, if it is less than KAFKA_BATCH_SIZE.
    batch: int | None = None
    # Prepares the handler, and raises ImproperlyConfigured if this process lacks the settings that it needs.
    # consume_events calls it at start; processes that only inspect subscriptions don't.
    prepare: Callable[[], None] | None = None

    @property
    def dead_letterable_topics(self) -> tuple[str, ...]:
        """The topics whose messages can be dead-lettered: all but dead-letter topics."""
        return tuple(topic for topic in self.topics if not topic.endswith(DEAD_LETTER_SUFFIX))

    @property
    def dead_letter_topics(self) -> tuple[str, ...]:
        return tuple(dead_letter_topic(topic, self.group) for topic in self.dead_letterable_topics)

    @property
    def every_topic(self) -> tuple[str, ...]:
        """Every topic that the subscription reads or writes."""
        return (*self.topics, *self.dead_letter_topics, *self.answers_to)


def cloud_event_headers(*, type: str, source: str, traceparent: str | None = None) -> tuple[tuple[str, bytes], ...]:
    """Return the headers of a CloudEvents 1.0 event with a JSON value, in the Kafka binding's binary mode."""
    headers = [
        ("content-type", b"application/json"),
        ("ce_specversion", b"1.0"),
        ("ce_id", str(uuid7()).encode()),
        ("ce_type", type.encode()),
        ("ce_source", source.encode()),
        ("ce_time", datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z").encode()),
    ]
    if traceparent is not None:
        headers.append(("traceparent", traceparent.encode()))
    return tuple(headers)


def event_message(
    topic: str, event: msgspec.Struct, *, key: str, source: str, traceparent: str | None = None
) -> Outgoing:
    """Return the message that publishes this event. The event's type is the topic, `source` the path of its service."""
    headers = cloud_event_headers(type=topic, source=source, traceparent=traceparent)
    return Outgoing(topic, key, _encoder.encode(event), headers)


def decoder_of(kind: type[T]) -> Callable[[Incoming], T]:
    """Return the function that decodes messages of this kind, for decode_each(). A message needs a value."""
    decoder = msgspec.json.Decoder(kind)
    return lambda message: decoder.decode(message.value or b"")


def decode_each(
    batch: Sequence[Incoming], decode: Callable[[Incoming], T], *, most: int = VALUE_MAX
) -> tuple[list[tuple[Incoming, T]], list[Rejected]]:
    """Decode every message of a batch; return the decoded messages and the rejected ones with their errors.

    A message is rejected if its value has more than `most` bytes (docs/adr/0038), or if `decode` raises
    msgspec.MsgspecError, UnicodeError, PermanentError or RecursionError, which msgspec raises for values nested too
    deeply.
    """
    decoded: list[tuple[Incoming, T]] = []
    rejected: list[Rejected] = []
    for message in batch:
        try:
            _measure(message, most)
            decoded.append((message, decode(message)))
        except (msgspec.MsgspecError, UnicodeError, RecursionError, PermanentError) as error:
            rejected.append((message, error))
    return decoded, rejected


def _measure(message: Incoming, most: int) -> None:
    if (size := len(message.value or b"")) > most:
        raise PermanentError(f"the value has {size} bytes, more than {most}")


def dead_letter(message: Incoming, error: Exception, *, group: str, cuts: bool = False) -> Outgoing:
    """Return the message unchanged but for added `dlt-` headers (UTF-8): its position, the consumer group that could
    not handle it, and the error.

    If `cuts` is true, or the message exceeds MESSAGE_MAX bytes, a long value or key is truncated, and `dlt-value-bytes`
    or `dlt-key-bytes` gives its original length. Excessive headers are dropped; `dlt-headers-dropped` gives their
    number. Headers of the original message that begin with `dlt-` are dropped, because they would be mistaken for ours.
    """
    value, key = message.value, message.key
    headers = [header for header in message.headers if not header[0].startswith(DEAD_LETTER_PREFIX)]
    about: dict[str, object] = {
        "dlt-topic": prefixed(message.topic),
        "dlt-partition": message.partition,
        "dlt-offset": message.offset,
        "dlt-timestamp": message.timestamp_ms,
        "dlt-group": prefixed(group),
        "dlt-error": f"{type(error).__module__}.{type(error).__qualname__}",
        "dlt-message": str(error)[:ERROR_TEXT_MAX],
        "dlt-time": datetime.now(UTC).isoformat(timespec="milliseconds"),
    }
    size_of_headers = sum(HEADER_COST + len(name.encode()) + len(text or b"") for name, text in headers)
    if cuts or len(value or b"") + len(key or b"") + size_of_headers > MESSAGE_MAX:
        if value is not None and len(value) > CUT_VALUE_MAX:
            about["dlt-value-bytes"] = len(value)
            value = value[:CUT_VALUE_MAX]
        if key is not None and len(key) > CUT_KEY_MAX:
            about["dlt-key-bytes"] = len(key)
            key = key[:CUT_KEY_MAX]
        if size_of_headers > CUT_HEADERS_MAX:
            about["dlt-headers-dropped"] = len(headers)
            headers = []
    return Outgoing(
        topic=dead_letter_topic(message.topic, group),
        key=key,
        value=value,
        headers=(
            *headers,
            *((name, str(text).encode(errors="replace")) for name, text in about.items() if text is not None),
        ),
    )
