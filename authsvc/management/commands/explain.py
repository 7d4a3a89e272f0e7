"""`manage.py explain`: print the full history of an account's sign-ups, changes and removal."""

from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db.models import Q, QuerySet
from django.utils import timezone

from authsvc.lights import Kind
from authsvc.models import EventTransaction, RemovedAccount, UnconfirmedSignUp, User
from authsvc.operations.timeline import Timeline, timeline_of
from runtime.equality import user_id_key
from runtime.mail_addresses import shown_address
from runtime.terminal import printable, table, titled, user_id_argument
from runtime.times import to_the_millisecond

HEAD: Final = ("TIME", "AFTER", "WHAT", "WHERE", "DETAIL")
# Default of --limit: number of histories shown for one user ID.
SHOWN: Final = 5
TITLES: Final = {Kind.SIGNUP: "Sign-up", Kind.CHANGE: "Change", Kind.REMOVAL: "Removal"}
# Shown instead of erased personal data.
ERASED: Final = "erased"


class Command(BaseCommand):
    help = (
        "Print the full history of a sign-up, a change or a removal: every attempt, message, position in Kafka, "
        "verdict, dead letter and administrator's action, with times. For a user ID, print the history of each of its "
        "sign-ups, changes and removals, newest first. A complete removal erases the user ID; the remaining records "
        "are found by the ID of the sign-up that created the account. The exit code is 1 if there is no such history."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "which",
            type=user_id_argument,
            metavar="USER_ID | ID",
            help="a user ID, or the ID of a sign-up, a change or a removal",
        )
        parser.add_argument(
            "--limit",
            type=int,
            default=SHOWN,
            metavar="N",
            help=f"show only the newest N of a user ID or a removed account (default: {SHOWN})",
        )

    def handle(self, *, which: str, limit: int, **_: Any) -> None:
        waiting = list(unconfirmed(which))
        for row in waiting:
            self.stdout.write(
                f"Sign-up {row.id} of {printable(row.user_id)}, begun at {shown_time(row.created_at)}, waits until its "
                "address is confirmed. Nothing is published until then; it is deleted after "
                f"{settings.SIGNUP_CONFIRM_HOURS} hours."
            )
        try:
            signups = chosen(which)
        except CommandError:
            if waiting:
                return
            raise
        if limit < 1:
            raise CommandError("--limit must be 1 or more.")
        shown = signups[:limit]
        for number, signup in enumerate(shown):
            if number:
                self.stdout.write("")
            for line in as_text(timeline_of(signup)):
                self.stdout.write(line)
        if more := len(signups) - len(shown):
            self.stdout.write("")
            self.stdout.write(f"{more} older ones of {printable(which)}; --limit {len(signups)} shows all:")
            older = [(shown_time(each.created_at), TITLES[Kind(each.kind)], str(each.id)) for each in signups[limit:]]
            for line in table(older):
                self.stdout.write(line)


def unconfirmed(which: str) -> QuerySet[UnconfirmedSignUp]:
    """Return the sign-ups of this ID or user ID that wait for confirmation, newest first."""
    is_meant = Q(user_id_key=user_id_key(which))
    with suppress(ValueError):
        is_meant |= Q(id=UUID(which))
    return UnconfirmedSignUp.objects.filter(is_meant).order_by("-created_at")


def chosen(which: str) -> list[EventTransaction]:
    """Return the transactions of this user ID, or the one with this ID, or those of the removed account with this ID,
    newest first. Raise CommandError if there is none."""
    # A user ID may have the form of a UUID.
    with suppress(ValueError, EventTransaction.DoesNotExist):
        return chosen_by_id(UUID(which))
    key = user_id_key(which)
    user = User.objects.filter(user_id_key=key).first()
    is_meant = Q(user_id_key=key)
    if user is not None:
        # Include transactions from before the user ID changed.
        is_meant |= Q(id=user.owner_signup_id)
        is_meant |= Q(owner_signup_id=user.owner_signup_id) & ~Q(kind=Kind.SIGNUP)
    if found := list(EventTransaction.objects.filter(is_meant).order_by("-created_at", "-id")):
        return found
    kept = f"Complete ones are deleted after {settings.SIGNUP_RETENTION} days."
    if user is not None:
        raise CommandError(
            f"Auth has the user {printable(user.user_id)}, who joined at {shown_time(user.date_joined)}, but no "
            f"sign-up of that user ID: it was purged, or the user was added before added users had sign-ups. {kept}"
        )
    raise CommandError(
        f"There is no sign-up, change or removal with the ID or user ID {printable(which)}. {kept} The records of a "
        "removed account no longer have its user ID."
    )


def chosen_by_id(wanted: UUID) -> list[EventTransaction]:
    """Return the transaction with this ID, or all of the removed account that the sign-up with this ID created.

    Raise EventTransaction.DoesNotExist, or CommandError with what is known of a removed account.
    """
    removed = RemovedAccount.objects.filter(owner_signup_id=wanted).first()
    if removed is None:
        return [EventTransaction.objects.get(id=wanted)]
    if found := list(EventTransaction.objects.filter(owner_signup_id=wanted).order_by("-created_at", "-id")):
        return found
    raise CommandError(
        f"The account of sign-up {wanted} was removed at {shown_time(removed.removed_at)}, at its version "
        f"{removed.version}. Nothing else is known of it: its sign-up, changes and removal were deleted after "
        f"{settings.SIGNUP_RETENTION} days."
    )


def as_text(timeline: Timeline) -> Iterator[str]:
    """Yield the timeline as lines."""
    row = timeline.signup
    yield from titled(
        [
            (TITLES[Kind(row.kind)], str(row.id)),
            ("Trace", timeline.trace_id),
            *record_lines(row),
            ("State", ", ".join(light_texts(row)) + f"; version {row.version}, attempts {row.attempts}"),
            *(("Note", note) for note in timeline.notes),
        ]
    )
    yield ""
    yield from table(
        [
            HEAD,
            *((shown_time(step.at), after, step.what, step.place, step.detail) for after, step in timeline.rows),
        ]
    )


def record_lines(row: EventTransaction) -> Iterator[tuple[str, str]]:
    yield "User ID", row.user_id or ERASED
    if row.kind != Kind.REMOVAL:
        yield "Email", shown_address(row.email) or ERASED
        yield "Name", row.user_name or ERASED
    is_created_by_it = row.kind == Kind.SIGNUP and row.is_owner
    yield "Record", "created by this sign-up" if is_created_by_it else f"created by sign-up {row.owner_signup_id}"


def light_texts(signup: EventTransaction) -> Iterator[str]:
    for service, light in signup.state.lights.items():
        yield f"{service} {light.status}" + (f" ({light.reason})" if light.reason else "")


def shown_time(at: datetime) -> str:
    """Return the time to the millisecond, in TIME_ZONE, with the name of the zone."""
    return f"{to_the_millisecond(at)} {timezone.localtime(at):%Z}"
