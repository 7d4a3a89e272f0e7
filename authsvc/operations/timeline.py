"""The full history of a sign-up, a change or a removal, for the administrator's page and `manage.py explain`: its row,
its Kafka messages, its dead letters, and administrators' actions. Nothing is stored for it (docs/adr/0030).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from django.contrib.admin.models import LogEntry
from django.contrib.contenttypes.models import ContentType
from django.utils.text import Truncator
from django.utils.translation import gettext as _
from django.utils.translation import gettext_noop, ngettext

from authsvc.lights import Kind, Light, Status
from authsvc.models import EventTransaction, RemovedAccount, User
from authsvc.operations.steps import Step
from authsvc.operations.timeline_messages import CLOCKS_DIFFER, is_about, message_steps, messages_about
from eventbus.models import DeadLetter, headers_from_document
from runtime.times import to_the_second

# Number of letters and actions shown, and of the account's changes whose user IDs are tried as keys.
MOST_SHOWN: Final = 200
CHANGES_FOLLOWED: Final = 20
# Characters shown of an error: a database error includes the whole row.
ERROR_SHOWN: Final = 100
# Log entries are stored in English and translated when shown.
REPLAYED: Final = gettext_noop("Replayed to every service")
REPLAYED_TO: Final = gettext_noop("Replayed to %(service)s")


@dataclass(frozen=True, slots=True)
class Timeline:
    """A transaction's steps in chronological order, and notes about information that could not be read."""

    signup: EventTransaction
    steps: Sequence[Step]
    notes: Sequence[str] = field(default=())

    @property
    def rows(self) -> Iterator[tuple[str, Step]]:
        """Each step after the text of its time since the start."""
        return ((f"{(step.at - self.signup.created_at).total_seconds():+.3f} s", step) for step in self.steps)

    @property
    def trace_id(self) -> str:
        """The W3C trace ID of all its messages, which is the transaction's ID."""
        return self.signup.id.hex


def timeline_of(signup: EventTransaction) -> Timeline:
    """Read everything known about an event transaction. Takes a few seconds at most, even when Kafka is unavailable."""
    record = User.objects.filter(owner_signup_id=signup.owner_signup_id).first()
    keys = keys_of(signup, record)
    actions = list(actions_on(signup))
    messages, notes = messages_about(signup, keys, actions)
    steps = [
        *row_steps(signup),
        *message_steps(signup, messages),
        *letter_steps(signup, keys),
        *(
            Step(action.action_time, "action", _done(action), detail=_("by %s, in the admin") % action.user)
            for action in actions
        ),
    ]
    return Timeline(signup, sorted(steps, key=lambda step: step.at), [*notes, *account_notes(signup, record)])


def keys_of(signup: EventTransaction, record: User | None) -> set[str]:
    """Return the keys that its messages may have: the user IDs that auth's record has had since then. Return none if
    its user ID has been erased.

    Events carry auth's record, whose user ID also differs from that of the sign-up if the email address was taken.
    """
    if not signup.user_id:
        return set()
    since = EventTransaction.objects.filter(
        owner_signup_id=signup.owner_signup_id, kind=Kind.CHANGE, created_at__gte=signup.created_at
    )
    renamed = since.order_by("created_at").values_list("user_id", flat=True)[:CHANGES_FOLLOWED]
    return {signup.user_id, *renamed, *([record.user_id] if record else [])}


def account_notes(signup: EventTransaction, record: User | None) -> Iterator[str]:
    """Yield notes on later changes and the removal of the account."""
    if record is not None:
        if signup.kind == Kind.CHANGE and record.version > signup.record_version:
            yield (
                _("The account has been changed again since: a replay sends its current record, version %d.")
                % record.version
            )
    elif signup.kind != Kind.REMOVAL:
        removed = RemovedAccount.objects.filter(owner_signup_id=signup.owner_signup_id).first()
        if removed is None:
            yield _("Auth no longer has a record of this user, so nothing can be sent again.")
        else:
            yield _("The account was removed at %s: its personal data was erased, and nothing can be sent again.") % (
                to_the_second(removed.removed_at)
            )


# --- Steps of the row ---------------------------------------------------------------------------------------------


def row_steps(signup: EventTransaction) -> Iterator[Step]:
    yield Step(signup.created_at, "auth", *begun(signup))
    for service, light in signup.state.lights.items():
        if light.decided_at is not None:
            turned = _("%s turned green") if light.status is Status.SUCCESS else _("%s turned red")
            yield Step(light.decided_at, "light", turned % service, detail=_decided(light), status=light.status)
    if signup.completed_at is not None:
        took = (signup.completed_at - signup.created_at).total_seconds()
        yield Step(signup.completed_at, "end", _("Complete: every service has answered"), detail=f"{took:.2f} s")
    if signup.stalled_at is not None:
        attempts = ngettext("after %d attempt", "after %d attempts", signup.attempts) % signup.attempts
        yield Step(signup.stalled_at, "end", _("Stalled: nothing is sent until someone replays it"), detail=attempts)
    if signup.next_due_at is not None:
        pending = ", ".join(signup.state.pending)
        yield Step(signup.next_due_at, "due", _("Next attempt due"), detail=_("pending: %s") % pending)


def begun(signup: EventTransaction) -> tuple[str, str, str]:
    """Return the words, the (empty) place and the detail of the first step."""
    version = _("version %d of the account") % signup.record_version
    if signup.kind == Kind.CHANGE:
        changed = _("changed: %s") % ", ".join(signup.changed_names)
        return _("Change saved"), "", f"{version}; {changed}"
    if signup.kind == Kind.REMOVAL:
        return _("Account removed from auth"), "", version
    saved = _("Sign-up and user saved") if signup.is_owner else _("Sign-up saved; auth already had this user")
    return saved, "", _("version 1: every light pending")


def _decided(light: Light) -> str:
    version = _("version %d") % light.version
    return f"{version}: {light.reason}" if light.reason else version


# --- Dead letters and actions -------------------------------------------------------------------------------------


def letter_steps(signup: EventTransaction, keys: Iterable[str]) -> Iterator[Step]:
    # The key of a removal's event is the account's ID once its user ID has been erased.
    known = {*keys, str(signup.owner_signup_id)}
    letters = DeadLetter.objects.filter(
        key__in=[key.encode() for key in known], put_aside_at__gte=signup.created_at - CLOCKS_DIFFER
    )
    for letter in letters.order_by("-pk").prefetch_related("actions")[:MOST_SHOWN]:
        if not is_about(signup.id, letter.value, headers_from_document(letter.headers)):
            continue
        put_aside = _("%s could not handle it: dead-lettered") % letter.group
        detail = f"{Truncator(letter.error_line).chars(ERROR_SHOWN)} ({letter.place})"
        yield Step(letter.put_aside_at, "letter", put_aside, letter.letter_place, detail, letter_id=letter.pk)
        for action in letter.actions.all():
            done = _("Dead letter %(id)d %(action)s") % {"id": letter.pk, "action": action.get_action_display()}
            detail = ": ".join(filter(None, (action.by, action.reason)))
            yield Step(action.at, "action", done, detail=detail, letter_id=letter.pk)


def actions_on(signup: EventTransaction) -> Iterator[LogEntry]:
    """Return administrators' actions on the transaction, oldest first."""
    about = ContentType.objects.get_for_model(EventTransaction)
    actions = LogEntry.objects.filter(content_type=about, object_id=str(signup.pk)).select_related("user")
    return reversed(actions.order_by("-action_time")[:MOST_SHOWN])


def replayed_to(service: str | None) -> str:
    """Return the log entry of a replay, in English; None means every service."""
    return REPLAYED_TO % {"service": service} if service else REPLAYED


def _done(action: LogEntry) -> str:
    """Return the log entry in the reader's language."""
    said = action.get_change_message()
    if said == REPLAYED:
        return _(REPLAYED)
    begin = REPLAYED_TO.partition("%")[0]
    return _(REPLAYED_TO) % {"service": said.removeprefix(begin)} if said.startswith(begin) else said
