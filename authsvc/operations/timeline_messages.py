"""The messages of an event transaction, read from Kafka on demand (docs/adr/0030)."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import msgspec
from django.conf import settings
from django.contrib.admin.models import LogEntry
from django.core.exceptions import ImproperlyConfigured
from django.utils.translation import gettext as _

from authsvc.lights import AUTH, REMOVED_REASON, Kind, Light, Status
from authsvc.models import EventTransaction
from authsvc.operations.steps import Step
from authsvc.signups.events import ANSWER_TOPICS, REQUEST_TOPICS, Holder
from eventbus.inspection.inspector import Inspector, NoSuchTopicError, Reading
from eventbus.messages import Header, Incoming, moment_of
from eventbus.models import place
from runtime.errors import in_one_line, is_transient
from runtime.tracing import trace_id_in

# Maximum clock skew between machines, and how long after its light an answer may be published.
CLOCKS_DIFFER: Final = timedelta(seconds=10)
COMES_WITHIN: Final = timedelta(minutes=1)
# Number of newest replays whose messages are searched for.
REPLAYS_FOLLOWED: Final = 5


class MessageFields(msgspec.Struct, frozen=True, rename="camel"):
    """The fields of a request or an answer that the timeline shows."""

    signup_id: UUID | None = None
    change_id: UUID | None = None
    attempt: int | None = None
    version: int = 1
    services: list[str] | None = None
    service: str | None = None
    status: Status | None = None
    reason: str | None = None
    held_by: list[Holder] = []

    @property
    def transaction_id(self) -> UUID | None:
        return self.change_id or self.signup_id


_decoder = msgspec.json.Decoder(MessageFields)


def topics_of(row: EventTransaction) -> tuple[str, str]:
    """Return the topics of its requests and of their answers."""
    kind = Kind(row.kind)
    return REQUEST_TOPICS[kind], ANSWER_TOPICS[kind]


def messages_about(
    row: EventTransaction, keys: Iterable[str], actions: Sequence[LogEntry]
) -> tuple[list[Incoming], list[str]]:
    """Return the messages of both topics about this transaction, and notes on why some may be missing.

    `keys` are those that its messages may have. Without keys, because the user ID has been erased, every partition is
    searched.
    """
    found: dict[tuple[str, int, int], Incoming] = {}
    notes: list[str] = []
    is_whole = True
    try:
        with Inspector() as inspector:
            for topic in topics_of(row):
                for since, until in times_of(row, actions):
                    for reading in _readings(inspector, topic, row.id, sorted(keys), since, until):
                        is_whole &= reading.is_whole
                        found |= {(each.topic, each.partition, each.offset): each for each in reading.messages}
    except NoSuchTopicError as error:
        notes.append(_("Kafka has no topic %s: nothing was ever sent there.") % error.args[0])
    except ImproperlyConfigured as error:
        notes.append(_("Kafka was not queried, so this shows only the data in the databases. %s") % error)
    except Exception as error:
        if not is_transient(error):
            raise
        notes.append(
            _("Kafka is not responding, so this shows only the databases' data: no messages, topics or offsets. %s")
            % in_one_line(error)
        )
    else:
        if not is_whole:
            notes.append(_("Kafka has more messages than could be read in time: later messages may be missing here."))
    about = [message for message in found.values() if is_about(row.id, message.value, message.headers)]
    return about, notes or list(missing_messages(row, about))


def _readings(
    inspector: Inspector, topic: str, row_id: UUID, keys: Sequence[str], since: datetime, until: datetime | None
) -> Iterator[Reading]:
    for key in keys:
        yield inspector.messages_about(topic, key=key, since=since, until=until)
    if not keys:
        yield inspector.messages_where(
            topic, lambda each: is_about(row_id, each.value, each.headers), since=since, until=until
        )


def times_of(row: EventTransaction, actions: Sequence[LogEntry]) -> list[tuple[datetime, datetime | None]]:
    """Return the periods in which messages may have been published: the run itself, and around the newest replays."""
    ended = row.completed_at or row.stalled_at
    times: list[tuple[datetime, datetime | None]] = [
        (row.created_at - CLOCKS_DIFFER, ended + COMES_WITHIN if ended else None)
    ]
    for action in actions[-REPLAYS_FOLLOWED:]:
        if ended and action.action_time > ended:
            times.append((action.action_time - COMES_WITHIN, action.action_time + COMES_WITHIN))
    return times


def is_about(row_id: UUID, value: bytes | memoryview | None, headers: Iterable[Header]) -> bool:
    """Whether a message belongs to this transaction. An unreadable message is matched by its trace ID."""
    if said := fields_in(value):
        return said.transaction_id == row_id
    return row_id.hex in (trace_id_in(content) for name, content in headers if name == "traceparent" and content)


def missing_messages(row: EventTransaction, messages: Sequence[Incoming]) -> Iterator[str]:
    """Yield notes on messages that the topics should have but do not."""
    asked_on, answered_on = topics_of(row)
    asked = {said.attempt for each in messages if each.topic == asked_on and (said := fields_in(each.value))}
    answered = {said.service for each in messages if each.topic == answered_on and (said := fields_in(each.value))}
    kept = _("Kafka deletes messages after %d hours") % settings.KAFKA_RETENTION_HOURS
    if settings.KAFKA_EMBEDDED:
        kept = _("the embedded broker loses all messages when it stops, and drops old ones earlier")
    if not messages:
        yield _("Kafka no longer has any message about it (%s), or none was ever sent.") % kept
    elif 1 not in asked:
        yield _("The first request is not in Kafka (%s), or Kafka was unavailable when it was due.") % kept
    decided = {name for name, light in row.state.lights.items() if _was_answered(light)} - {AUTH}
    if messages and (missing := sorted(decided - answered)):
        yield _("The answers of %(services)s are not in Kafka: %(kept)s.") % {
            "services": ", ".join(missing), "kept": kept,
        }  # fmt: skip


def _was_answered(light: Light) -> bool:
    return light.status is not Status.PENDING and light.reason != REMOVED_REASON


def fields_in(value: bytes | memoryview | None) -> MessageFields | None:
    """Return None for an unreadable value: not JSON, not UTF-8, another shape, or nested too deeply."""
    try:
        said = _decoder.decode(bytes(value or b""))
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None
    return said if said.transaction_id else None


def message_steps(row: EventTransaction, messages: Sequence[Incoming]) -> Iterator[Step]:
    asked_on, _answered_on = topics_of(row)
    answered: set[str] = set()
    for message in sorted(messages, key=lambda each: (each.timestamp_ms or 0, each.topic, each.offset)):
        # The embedded broker may store no timestamp, and a producer may have set an arbitrary one.
        at = moment_of(message.timestamp_ms or None) or row.created_at
        where = place(message.topic, message.partition, message.offset)
        said = fields_in(message.value)
        own_time = _own_time(message)
        if said is None:
            yield Step(at, "asked", _("Unreadable message"), where, own_time)
        elif message.topic == asked_on:
            whom = ", ".join(said.services) if said.services else _("every service")
            attempts = _("attempt %d") % said.attempt if said.attempt else ""
            version = _("version %d of the account") % said.version if said.version > 1 else ""
            yield Step(at, "asked", _("Asked %s") % whom, where, _joined(attempts, version, own_time))
        else:
            service = said.service or "?"
            detail = _joined(said.reason, *_rows_in_the_way(said), _effect(row, said, answered), own_time)
            yield Step(at, "answered", _("%(service)s answered %(status)s") % {
                "service": service, "status": said.status or "?",
            }, where, detail, said.status)  # fmt: skip


def _rows_in_the_way(said: MessageFields) -> Iterator[str]:
    for row in said.held_by:
        yield _("in the way: version %(version)d of the account of sign-up %(owner)s") % {
            "version": row.version, "owner": row.owner_signup_id,
        }  # fmt: skip


def _effect(row: EventTransaction, said: MessageFields, answered: set[str]) -> str:
    """Describe an answer that decides no light; add the service of one that does to `answered`."""
    light = row.state.lights.get(said.service or "")
    if said.service in answered:
        return _("repeated; the light does not change")
    if said.held_by and light is not None and light.status is not Status.FAIL:
        return _("decides nothing, because that account has been changed or removed since")
    answered.add(said.service or "?")
    return ""


def _own_time(message: Incoming) -> str:
    """Describe a timestamp outside the calendar's range; such a step is placed at the start of the transaction."""
    milliseconds = message.timestamp_ms
    if milliseconds is None or moment_of(milliseconds):
        return ""
    return _("its own timestamp is %d ms after 1970") % milliseconds


def _joined(*details: str | None) -> str:
    return "; ".join(filter(None, details))
