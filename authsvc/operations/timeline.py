"""A sign-up's full history, for the administrator's page and `manage.py explain`: its row, its Kafka messages, its dead
letters, and administrators' actions. Nothing is stored for it: the topics are read on demand (docs/adr/0030).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Literal
from uuid import UUID

import msgspec
from django.conf import settings
from django.contrib.admin.models import LogEntry
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import ImproperlyConfigured
from django.utils.text import Truncator
from django.utils.translation import gettext as _
from django.utils.translation import gettext_noop, ngettext

from authsvc.lights import AUTH, Light, Status
from authsvc.models import EventTransaction, User
from authsvc.signups.events import NEW_USER_ANSWERED, NEW_USER_REQUESTED
from eventbus.inspection.inspector import Inspector, NoSuchTopicError
from eventbus.messages import Header, Incoming, moment_of
from eventbus.models import DeadLetter, headers_from_document, place
from runtime.errors import is_transient
from runtime.tracing import trace_id_in

Kind = Literal["auth", "asked", "answered", "light", "letter", "act", "end", "due"]

# Maximum clock skew between machines, and how long after its light an answer may be published.
CLOCKS_DIFFER: Final = timedelta(seconds=10)
COMES_WITHIN: Final = timedelta(minutes=1)
# Number of newest replays whose messages are searched for, and of letters and acts shown.
REPLAYS_FOLLOWED: Final = 5
MOST_SHOWN: Final = 200
# Characters shown of an error: a database error includes the whole row.
ERROR_SHOWN: Final = 100
# Log entries are stored in English and translated when shown.
REPLAYED: Final = gettext_noop("Replayed to every service")
REPLAYED_TO: Final = gettext_noop("Replayed to %(service)s")


@dataclass(frozen=True, slots=True)
class Step:
    """One event of the timeline. `place` is its message's position in Kafka, `letter_id` the id of its dead letter."""

    at: datetime
    kind: Kind
    what: str
    place: str = ""
    detail: str = ""
    status: Status | None = None
    letter_id: int | None = None

    @property
    def milliseconds(self) -> str:
        return f"{self.at.microsecond // 1000:03}"


@dataclass(frozen=True, slots=True)
class Story:
    """A sign-up's steps in chronological order, and notes about information that could not be read."""

    signup: EventTransaction
    steps: Sequence[Step]
    notes: Sequence[str] = field(default=())

    def after(self, step: Step) -> str:
        """Return the time of a step relative to the start of the sign-up, as text."""
        return f"{(step.at - self.signup.created_at).total_seconds():+.3f} s"

    @property
    def rows(self) -> Iterator[tuple[str, Step]]:
        """Each step with its time since the start."""
        return ((self.after(step), step) for step in self.steps)

    @property
    def trace_id(self) -> str:
        """The W3C trace ID of all its messages, which is the sign-up's id."""
        return self.signup.id.hex


def story_of(signup: EventTransaction) -> Story:
    """Read everything known about a sign-up. Takes a few seconds at most, even when Kafka is unavailable."""
    record = User.objects.filter(owner_signup_id=signup.owner_signup_id).first()
    # Events carry auth's record, whose user ID differs if the email was taken or the record was changed since.
    keys = {signup.user_id, record.user_id if record else signup.user_id}
    acts = list(acts_on(signup))
    messages, notes = messages_about(signup, keys, acts)
    steps = [
        *row_steps(signup),
        *message_steps(signup, messages),
        *letter_steps(signup, keys),
        *(Step(act.action_time, "act", _done(act), detail=_by(act)) for act in acts),
    ]
    if record is None:
        notes.append(_("Auth no longer has a record of this user, so nothing can be sent again."))
    return Story(signup, sorted(steps, key=lambda step: step.at), notes)


# --- What the row says ------------------------------------------------------------------------------------------


def row_steps(signup: EventTransaction) -> Iterator[Step]:
    begun = _("Sign-up and user saved") if signup.is_owner else _("Sign-up saved; auth already had this user")
    yield Step(signup.created_at, "auth", begun, detail=_("version 1: every light pending"))
    for service, light in signup.state.lights.items():
        if light.decided_at is not None:
            yield Step(
                light.decided_at, "light", _light_turned(service, light), detail=_decided(light), status=light.status
            )
    if signup.completed_at is not None:
        took = (signup.completed_at - signup.created_at).total_seconds()
        yield Step(signup.completed_at, "end", _("Complete: every service has answered"), detail=f"{took:.2f} s")
    if signup.stalled_at is not None:
        tries = ngettext("after %d attempt", "after %d attempts", signup.attempts) % signup.attempts
        yield Step(signup.stalled_at, "end", _("Stalled: nothing is sent until someone replays it"), detail=tries)
    if signup.next_due_at is not None:
        pending = ", ".join(signup.state.pending)
        yield Step(signup.next_due_at, "due", _("Next attempt due"), detail=_("pending: %s") % pending)


def _light_turned(service: str, light: Light) -> str:
    if light.status is Status.SUCCESS:
        return _("%s turned green") % service
    return _("%s turned red") % service


def _decided(light: Light) -> str:
    version = _("version %d") % light.version
    return f"{version}: {light.reason}" if light.reason else version


# --- What went through Kafka ------------------------------------------------------------------------------------


class Said(msgspec.Struct, frozen=True, rename="camel"):
    """The fields of a request or an answer that the timeline shows."""

    signup_id: UUID
    attempt: int | None = None
    services: list[str] | None = None
    service: str | None = None
    status: Status | None = None
    reason: str | None = None


_decoder = msgspec.json.Decoder(Said)


def messages_about(
    signup: EventTransaction, keys: Iterable[str], acts: Sequence[LogEntry]
) -> tuple[list[Incoming], list[str]]:
    """Return the messages of both topics about this sign-up, and notes on why some may be missing."""
    found: dict[tuple[str, int, int], Incoming] = {}
    notes: list[str] = []
    is_whole = True
    try:
        with Inspector() as inspector:
            for topic in (NEW_USER_REQUESTED, NEW_USER_ANSWERED):
                for key in sorted(keys):
                    for since, until in times_of(signup, acts):
                        reading = inspector.messages_about(topic, key=key, since=since, until=until)
                        is_whole &= reading.is_whole
                        found |= {(each.topic, each.partition, each.offset): each for each in reading.messages}
    except NoSuchTopicError as error:
        notes.append(_("Kafka has no topic %s: nothing was ever sent there.") % error.args[0])
    except ImproperlyConfigured as error:
        notes.append(_("Kafka was not queried, so this shows only what the databases have. %s") % error)
    except Exception as error:
        if not is_transient(error):
            raise
        notes.append(
            _("Kafka is not responding, so this shows only what the databases have: no messages, topics or offsets. %s")
            % " ".join(str(error).split())
        )
    else:
        if not is_whole:
            notes.append(_("Kafka has more messages than could be read in time: later messages may be missing here."))
    about = [message for message in found.values() if is_about(signup.id, message.value, message.headers)]
    return about, notes or list(what_is_gone(signup, about))


def times_of(signup: EventTransaction, acts: Sequence[LogEntry]) -> list[tuple[datetime, datetime | None]]:
    """Return the periods in which messages may have been published: the run itself, and around the newest replays."""
    ended = signup.completed_at or signup.stalled_at
    times: list[tuple[datetime, datetime | None]] = [
        (signup.created_at - CLOCKS_DIFFER, ended + COMES_WITHIN if ended else None)
    ]
    for act in acts[-REPLAYS_FOLLOWED:]:
        if ended and act.action_time > ended:
            times.append((act.action_time - COMES_WITHIN, act.action_time + COMES_WITHIN))
    return times


def is_about(signup_id: UUID, value: bytes | memoryview | None, headers: Iterable[Header]) -> bool:
    """Whether a message belongs to this sign-up. An unreadable message is matched by its trace ID."""
    if said := said_in(value):
        return said.signup_id == signup_id
    return signup_id.hex in (trace_id_in(content) for name, content in headers if name == "traceparent" and content)


def what_is_gone(signup: EventTransaction, messages: Sequence[Incoming]) -> Iterator[str]:
    """Yield notes on messages that the topics should have but do not."""
    asked = {said.attempt for each in messages if each.topic == NEW_USER_REQUESTED and (said := said_in(each.value))}
    answered = {said.service for each in messages if each.topic == NEW_USER_ANSWERED and (said := said_in(each.value))}
    kept = _("Kafka deletes messages after %d hours") % settings.KAFKA_RETENTION_HOURS
    if settings.KAFKA_EMBEDDED:
        kept = _("the embedded broker loses all messages when it stops, and drops old ones earlier")
    if not messages:
        yield _("Kafka no longer has any message about it (%s), or none was ever sent.") % kept
    elif 1 not in asked:
        yield _("The first request is not in Kafka (%s), or Kafka was unavailable when it was due.") % kept
    decided = {name for name, light in signup.state.lights.items() if light.status is not Status.PENDING} - {AUTH}
    if messages and (missing := sorted(decided - answered)):
        yield _("The answers of %(services)s are not in Kafka: %(kept)s.") % {
            "services": ", ".join(missing), "kept": kept,
        }  # fmt: skip


def said_in(value: bytes | memoryview | None) -> Said | None:
    """Return None for an unreadable value: not JSON, not UTF-8, another shape, or nested too deeply."""
    try:
        return _decoder.decode(bytes(value or b""))
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None


def message_steps(signup: EventTransaction, messages: Sequence[Incoming]) -> Iterator[Step]:
    answered: set[str] = set()
    for message in sorted(messages, key=lambda each: (each.timestamp_ms or 0, each.topic, each.offset)):
        # The embedded broker may store no timestamp, and a producer may have set an arbitrary one.
        at = moment_of(message.timestamp_ms or None) or signup.created_at
        where = place(message.topic, message.partition, message.offset)
        said = said_in(message.value)
        if said is None:
            yield Step(at, "asked", _("Unreadable message"), where, _own_time(message))
        elif message.topic == NEW_USER_REQUESTED:
            whom = ", ".join(said.services) if said.services else _("every service")
            tries = _("attempt %d") % said.attempt if said.attempt else ""
            yield Step(at, "asked", _("Asked %s") % whom, where, "; ".join(filter(None, (tries, _own_time(message)))))
        else:
            service = said.service or "?"
            repeated = _("repeated; the light does not change") if service in answered else ""
            answered.add(service)
            detail = "; ".join(filter(None, (said.reason, repeated, _own_time(message))))
            yield Step(at, "answered", _("%(service)s answered %(status)s") % {
                "service": service, "status": said.status or "?",
            }, where, detail, said.status)  # fmt: skip


def _own_time(message: Incoming) -> str:
    """Describe a timestamp outside the calendar's range; such a step is placed at the start of the sign-up."""
    milliseconds = message.timestamp_ms
    if milliseconds is None or moment_of(milliseconds):
        return ""
    return _("its own timestamp is %d ms after 1970") % milliseconds


# --- Dead letters, and acts -------------------------------------------------------------------------------------


def letter_steps(signup: EventTransaction, keys: Iterable[str]) -> Iterator[Step]:
    letters = DeadLetter.objects.filter(
        key__in=[key.encode() for key in keys], put_aside_at__gte=signup.created_at - CLOCKS_DIFFER
    )
    for letter in letters.order_by("-pk").prefetch_related("acts")[:MOST_SHOWN]:
        if not is_about(signup.id, letter.value, headers_from_document(letter.headers)):
            continue
        put_aside = _("%s could not handle it: dead-lettered") % letter.group
        detail = f"{Truncator(letter.error_line).chars(ERROR_SHOWN)} ({letter.place})"
        yield Step(letter.put_aside_at, "letter", put_aside, letter.letter_place, detail, letter_id=letter.pk)
        for act in letter.acts.all():
            done = _("Dead letter %(id)d %(act)s") % {"id": letter.pk, "act": act.get_act_display()}
            detail = ": ".join(filter(None, (act.by, act.reason)))
            yield Step(act.at, "act", done, detail=detail, letter_id=letter.pk)


def acts_on(signup: EventTransaction) -> Iterator[LogEntry]:
    """Return administrators' actions on the sign-up, oldest first."""
    about = ContentType.objects.get_for_model(EventTransaction)
    acts = LogEntry.objects.filter(content_type=about, object_id=str(signup.pk)).select_related("user")
    return reversed(acts.order_by("-action_time")[:MOST_SHOWN])


def _by(act: LogEntry) -> str:
    return _("by %s, in the admin") % act.user


def replayed_to(service: str | None) -> str:
    """Return the log entry of a replay, in English; None means every service."""
    return REPLAYED_TO % {"service": service} if service else REPLAYED


def _done(act: LogEntry) -> str:
    """Return the log entry in the reader's language."""
    said = act.get_change_message()
    if said == REPLAYED:
        return _(REPLAYED)
    begin = REPLAYED_TO.partition("%")[0]
    return _(REPLAYED_TO) % {"service": said.removeprefix(begin)} if said.startswith(begin) else said
