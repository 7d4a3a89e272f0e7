"""The document of a message in the search index, without personal data (docs/personal-data.md).

Only the fields listed here leave Kafka, and each only if it has the form that docs/asyncapi.yaml specifies: a document
can't contain a name or an address, not even one in the wrong field. User IDs are left out on purpose (docs/adr/0076).
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Literal
from uuid import UUID

import msgspec
from msgspec import Meta

from eventbus.deadletters.letters import Origin, parse_header_number
from eventbus.messages import VALUE_MAX, Incoming, moment_of

# The topics of sign-ups, changes and removals, with the kind of event transaction and of message.
EVENT_TOPICS: Final = {
    "user.newUser.req": ("signUp", "request"),
    "user.newUser.res": ("signUp", "answer"),
    "user.changeUser.req": ("change", "request"),
    "user.changeUser.res": ("change", "answer"),
    "user.removeUser.req": ("removal", "request"),
    "user.removeUser.res": ("removal", "answer"),
}
# The part of an index's name that stands for the day, in an index of messages without a credible time.
UNDATED: Final = "undated"
DAY_FORMAT: Final = "%Y.%m.%d"
# The earliest credible time of a message, and how far it may be ahead of this clock.
EARLIEST: Final = datetime(2000, 1, 1, tzinfo=UTC)
CLOCK_DIFFERENCE: Final = timedelta(days=1)

# The largest number that a field of OpenSearch's type "integer" can store.
_INTEGER_MAX: Final = 2**31 - 1
_Name = Annotated[str, Meta(pattern=r"\A[a-z][a-z0-9-]{0,49}\Z")]
_Count = Annotated[int, Meta(ge=1, le=_INTEGER_MAX)]
# The indexed fields of a value, and what each may contain. Others are ignored, and so are invalid ones.
_VALUE_FIELDS: Final[Mapping[str, Any]] = {
    "signupId": UUID,
    "changeId": UUID,
    "ownerSignupId": UUID,
    "service": _Name,
    "services": Annotated[list[_Name], Meta(max_length=50)],
    "status": Literal["SUCCESS", "FAIL"],
    "reason": Literal["duplicate: userId", "duplicate: email", "removed"],
    "attempt": _Count,
    "version": _Count,
    "occurredAt": Annotated[datetime, Meta(tz=True)],
}
# The name of an error's type, as the header `dlt-error` of a dead letter has it.
_ErrorType = Annotated[str, Meta(pattern=r"\A[A-Za-z_][A-Za-z0-9_.<>]{0,199}\Z")]

_KEYWORD: Final = {"type": "keyword"}
_DATE: Final = {"type": "date"}
_LONG: Final = {"type": "long"}
_INTEGER: Final = {"type": "integer"}
# The index's mapping. Fields of a newer version are stored in the indices of older ones, but not searchable there.
MAPPING: Final = {
    "dynamic": False,
    "properties": {
        "@timestamp": _DATE,
        "topic": _KEYWORD,
        "partition": _INTEGER,
        "offset": _LONG,
        "kind": _KEYWORD,
        "message": _KEYWORD,
        "readable": {"type": "boolean"},
        "signupId": _KEYWORD,
        "changeId": _KEYWORD,
        "ownerSignupId": _KEYWORD,
        "service": _KEYWORD,
        "services": _KEYWORD,
        "status": _KEYWORD,
        "reason": _KEYWORD,
        "attempt": _INTEGER,
        "version": _INTEGER,
        "occurredAt": _DATE,
        "letter": {
            "properties": {
                "topic": _KEYWORD,
                "partition": _INTEGER,
                "offset": _LONG,
                "group": _KEYWORD,
                "error": _KEYWORD,
            }
        },
    },
}


class Document(msgspec.Struct, frozen=True):
    """A message's document: `day` selects its index. A repeated message has the same `day` and `id`."""

    day: str
    id: str
    source: dict[str, Any]


def document_of(message: Incoming, origins: Mapping[str, Origin], *, now: datetime) -> Document:
    """Return the message's document. `origins`: where the messages of each dead-letter topic come from.

    Every message has one: one that can't be decoded is marked as not `readable`."""
    sent_at = moment_of(message.timestamp_ms)
    origin = origins.get(message.topic)
    kind, sort = EVENT_TOPICS.get(origin.topic if origin else message.topic, (None, None))
    fields = _fields_of(message.value)
    source = {
        "@timestamp": sent_at,
        "topic": message.topic,
        "partition": message.partition,
        "offset": message.offset,
        "kind": kind,
        "message": "deadLetter" if origin else sort,
        "readable": fields is not None,
        **(fields or {}),
        "letter": _letter(message, origin) if origin else None,
    }
    return Document(
        day=_day(sent_at, now),
        id=f"{message.topic}:{message.partition}:{message.offset}",
        source={name: value for name, value in source.items() if value is not None},
    )


def _day(sent_at: datetime | None, now: datetime) -> str:
    """The day in UTC by Kafka's clock, because that stays the same when the message is read again."""
    is_credible = sent_at is not None and EARLIEST <= sent_at < now + CLOCK_DIFFERENCE
    return sent_at.strftime(DAY_FORMAT) if sent_at and is_credible else UNDATED


def _fields_of(value: bytes | None) -> dict[str, Any] | None:
    """Return the indexed fields of a value; None if it is no JSON object or too large."""
    if value is None or len(value) > VALUE_MAX:
        return None
    try:
        raw = msgspec.json.decode(value, type=dict[str, msgspec.Raw])
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None
    fields = {name: _read(raw[name], kind) for name, kind in _VALUE_FIELDS.items() if name in raw}
    return {name: field for name, field in fields.items() if field is not None}


def _read(text: bytes | msgspec.Raw, kind: Any) -> Any:
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None


def _letter(message: Incoming, origin: Origin) -> dict[str, object]:
    """Describe the message that was dead-lettered. The text of its error is left out, because it may quote values."""
    headers = dict(message.headers)
    letter = {
        "topic": origin.topic,
        "group": origin.group,
        "partition": parse_header_number(headers.get("dlt-partition"), most=_INTEGER_MAX),
        "offset": parse_header_number(headers.get("dlt-offset")),
        "error": _error(headers.get("dlt-error")),
    }
    return {name: value for name, value in letter.items() if value is not None}


def _error(text: bytes | None) -> str | None:
    try:
        return msgspec.convert((text or b"").decode(), _ErrorType)
    except (msgspec.MsgspecError, UnicodeError):
        return None
