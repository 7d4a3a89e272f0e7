"""What goes through Kafka, without a word of what it means."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

import msgspec
from uuid_utils.compat import uuid7

from eventbus.errors import PermanentError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Incoming:
    """A message as it was read. `topic` comes without KAFKA_PREFIX; `timestamp_ms` is since 1970."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()
    timestamp_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to publish. `topic` goes without KAFKA_PREFIX."""

    topic: str
    key: str
    value: bytes
    headers: tuple[tuple[str, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class HandledBatch:
    """What became of a batch: what to publish before its offsets are committed, and what to put aside, with why."""

    answers: Sequence[Outgoing] = ()
    rejected: Sequence[tuple[Incoming, Exception]] = ()


Handler = Callable[[Sequence[Incoming]], HandledBatch]


@dataclass(frozen=True)
class Subscription:
    """One group's reading of one topic. `answers_to` are the topics that its handler publishes to."""

    group: str
    topic: str
    handle: Handler
    answers_to: tuple[str, ...] = ()


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
    batch: Sequence[Incoming], decode: Callable[[Incoming], T]
) -> tuple[list[tuple[Incoming, T]], list[tuple[Incoming, Exception]]]:
    """Decodes every message of a batch; what can't be is set apart with its error, and the rest goes on."""
    decoded: list[tuple[Incoming, T]] = []
    rejected: list[tuple[Incoming, Exception]] = []
    for message in batch:
        try:
            decoded.append((message, decode(message)))
        except (msgspec.MsgspecError, UnicodeError, PermanentError) as error:
            rejected.append((message, error))
    return decoded, rejected
