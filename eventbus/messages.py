"""What goes through Kafka, without a word of what it means."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, TypeVar

import msgspec
from uuid_utils.compat import uuid7

from eventbus.clients import prefixed
from eventbus.topics import MESSAGE_MAX, dead_letter_topic
from runtime.errors import PermanentError

T = TypeVar("T")
Header = tuple[str, bytes | None]

# Bytes of a value that is decoded, unless its reader says otherwise: an event about one user has a few hundred.
VALUE_MAX: Final = 16 * 1024
# What is left of a larger message, and of one that goes to a dead-letter topic that takes no more than other topics.
CUT_VALUE_MAX: Final = 900_000
CUT_KEY_MAX: Final = 10_000
CUT_HEADERS_MAX: Final = 50_000
# Bytes that a header costs beside its name and value, at most: Kafka writes the length of each before it.
HEADER_COST: Final = 10
ERROR_TEXT_MAX: Final = 2_000
# How the names of the headers begin that a dead letter has and its message had not.
DEAD_LETTER_PREFIX: Final = "dlt-"


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
# Milliseconds since then of the calendar's first and last whole days, which it has in every time zone.
_FIRST_MOMENT: Final = -62_135_510_400_000
_LAST_MOMENT: Final = 253_402_214_400_000


def moment_of(milliseconds: int | None) -> datetime | None:
    """A time of Kafka's; None for none, and for one that is in no calendar: who publishes a message may choose it."""
    if milliseconds is None or not _FIRST_MOMENT <= milliseconds <= _LAST_MOMENT:
        return None
    return _EPOCH + timedelta(milliseconds=milliseconds)


@dataclass(frozen=True, slots=True)
class Incoming:
    """A message as it was read. `topic` comes without KAFKA_PREFIX; `timestamp_ms` is since 1970."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[Header, ...] = ()
    timestamp_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to publish. `topic` goes without KAFKA_PREFIX."""

    topic: str
    key: str | bytes | None
    value: bytes | None
    headers: tuple[Header, ...] = ()


# A message to put aside, and why.
Rejected = tuple[Incoming, Exception]


@dataclass(frozen=True, slots=True)
class HandledBatch:
    """What became of a batch: what to publish before its offsets are committed, and what to put aside, with why."""

    answers: Sequence[Outgoing] = ()
    rejected: Sequence[Rejected] = ()


# Handles a batch; everything it saved is committed when it returns. It gets the same messages again after any failure.
Handler = Callable[[Sequence[Incoming]], HandledBatch]


@dataclass(frozen=True)
class Subscription:
    """One group's reading of one topic. `answers_to` are the topics that its handler publishes to. A batch's second
    message is waited for, for `gathers` seconds, where it mostly comes right behind the first."""

    group: str
    topic: str
    handle: Handler
    answers_to: tuple[str, ...] = ()
    gathers: float = 0.0

    @property
    def topics(self) -> tuple[str, ...]:
        """Every topic that it reads or writes."""
        return (self.topic, dead_letter_topic(self.topic, self.group), *self.answers_to)


def cloud_event_headers(
    *, type: str, source: str, id: str | None = None, traceparent: str | None = None
) -> tuple[tuple[str, bytes], ...]:
    """The headers of a CloudEvents 1.0 event in binary mode with a JSON value, as the Kafka binding names them."""
    headers = [
        ("content-type", b"application/json"),
        ("ce_specversion", b"1.0"),
        ("ce_id", (id or str(uuid7())).encode()),
        ("ce_type", type.encode()),
        ("ce_source", source.encode()),
        ("ce_time", datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z").encode()),
    ]
    if traceparent is not None:
        headers.append(("traceparent", traceparent.encode()))
    return tuple(headers)


def decode_each(
    batch: Sequence[Incoming], decode: Callable[[Incoming], T], *, most: int = VALUE_MAX
) -> tuple[list[tuple[Incoming, T]], list[Rejected]]:
    """Decodes every message of a batch; what can't be is set apart with its error, and the rest goes on.

    A value of more than `most` bytes is not decoded at all (docs/adr/0038).
    It can't be where `decode` raises msgspec.MsgspecError, UnicodeError, PermanentError or, as msgspec does for what is
    nested too deep, RecursionError.
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
    """The message as it was, with `dlt-` headers (UTF-8) that say where it stood, who could not handle it, and why.

    Where it `cuts`, and where the message is larger than MESSAGE_MAX bytes, a long value or key is cut, and
    `dlt-value-bytes` or `dlt-key-bytes` says how long it was; of too many headers `dlt-headers-dropped` keeps the
    number. `dlt-` headers of the message's own are left out: nobody could tell whose they are.
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
