"""`manage.py explain`: print the full history of a sign-up."""

from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db.models import Q, QuerySet
from django.utils import timezone

from authsvc.models import EventTransaction, UnconfirmedSignUp, User
from authsvc.operations.timeline import Story, story_of
from runtime.equality import user_id_key
from runtime.mail_addresses import shown_address
from runtime.terminal import printable, table, titled
from runtime.times import to_the_millisecond

HEAD: Final = ("TIME", "AFTER", "WHAT", "WHERE", "DETAIL")
# Default of --limit: number of sign-ups shown for one user ID.
TOLD: Final = 5


class Command(BaseCommand):
    help = (
        "Prints the full history of a sign-up: every attempt, message, position in Kafka, verdict, dead letter and "
        "administrator's action, with times. For a user ID, prints the history of each of its sign-ups, newest first. "
        "Exit code 1 if there is none."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("which", metavar="USER_ID | SIGNUP_ID")
        parser.add_argument(
            "--limit",
            type=int,
            default=TOLD,
            metavar="N",
            help=f"show only the newest N sign-ups of a user ID (default: {TOLD})",
        )

    def handle(self, *, which: str, limit: int, **_: Any) -> None:
        waiting = list(unconfirmed(which))
        for row in waiting:
            self.stdout.write(
                f"Sign-up {row.id} of {printable(row.user_id)} waits since {shown_time(row.created_at)} until its "
                "address is confirmed. Nothing is published before; it is deleted after "
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
        told = signups[:limit]
        for number, signup in enumerate(told):
            if number:
                self.stdout.write("")
            for line in as_text(story_of(signup)):
                self.stdout.write(line)
        if more := len(signups) - len(told):
            self.stdout.write("")
            self.stdout.write(f"{more} older ones of {printable(which)}; --limit {len(signups)} tells all:")
            for line in table([(shown_time(each.created_at), str(each.id)) for each in signups[limit:]]):
                self.stdout.write(line)


def unconfirmed(which: str) -> QuerySet[UnconfirmedSignUp]:
    """The sign-ups of this id or user ID that wait for confirmation, the newest first."""
    is_meant = Q(user_id_key=user_id_key(which))
    with suppress(ValueError):
        is_meant |= Q(id=UUID(which))
    return UnconfirmedSignUp.objects.filter(is_meant).order_by("-created_at")


def chosen(which: str) -> list[EventTransaction]:
    """The sign-ups of this id or user ID, the newest first. Raises CommandError, in words, where there is none."""
    try:
        signup_id = UUID(which)
    except ValueError:
        pass
    else:
        if signup := EventTransaction.objects.filter(id=signup_id).first():
            return [signup]
    if signups := list(EventTransaction.objects.filter(user_id_key=user_id_key(which)).order_by("-created_at", "-id")):
        return signups
    kept = f"Complete ones are deleted after {settings.SIGNUP_RETENTION} days."
    if user := User.objects.filter(user_id_key=user_id_key(which)).first():
        raise CommandError(
            f"Auth has the user {printable(user.user_id)}, who joined at {shown_time(user.date_joined)}, but no "
            f"sign-up of that user ID: it was purged, or the user was added before added users had sign-ups. {kept}"
        )
    raise CommandError(f"There is no sign-up with the ID or user ID {printable(which)}. {kept}")


def as_text(story: Story) -> Iterator[str]:
    """The story as lines."""
    signup = story.signup
    yield from titled(
        [
            ("Sign-up", str(signup.id)),
            ("Trace", story.trace_id),
            ("User ID", signup.user_id),
            ("Email", shown_address(signup.email) or "erased"),
            ("Name", signup.user_name or "erased"),
            ("Record", "made by this sign-up" if signup.is_owner else f"made by sign-up {signup.owner_signup_id}"),
            ("State", ", ".join(light_texts(signup)) + f"; version {signup.version}, tries {signup.attempts}"),
            *(("Note", note) for note in story.notes),
        ]
    )
    yield ""
    yield from table(
        [
            HEAD,
            *((shown_time(step.at), after, step.what, step.place, step.detail) for after, step in story.rows),
        ]
    )


def light_texts(signup: EventTransaction) -> Iterator[str]:
    for service, light in signup.state.lights.items():
        yield f"{service} {light.status}" + (f" ({light.reason})" if light.reason else "")


def shown_time(at: datetime) -> str:
    """To the millisecond, in TIME_ZONE, which is named."""
    return f"{to_the_millisecond(at)} {timezone.localtime(at):%Z}"
