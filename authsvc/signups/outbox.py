"""When a sign-up's event is due again, and who publishes it: each sign-up is its own outbox (docs/adr/0002)."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from random import uniform
from typing import Final
from uuid import UUID

from django.db.models import F
from django.utils import timezone

from authsvc.lights import SignUpState
from authsvc.models import DATABASE, SignUp, User
from livesettings.values import live
from runtime.database.bulk_sql import overwrite
from runtime.database.transactions import atomically

# A pause is up to so many times as long as it is said to be.
JITTER: Final = 1.1
EVENT_FIELDS: Final = ("owner_signup_id", "user_id", "email", "user_name", "role")


def pause_after(attempt: int) -> timedelta:
    """How long to wait for the answers to the n-th try: doubling, with a tenth of jitter."""
    seconds = min(live.RELAY_FIRST_PAUSE * 2 ** min(attempt - 1, 16), live.RELAY_MAX_PAUSE)
    return timedelta(seconds=seconds * uniform(1, JITTER))  # noqa: S311 - jitter, not a secret


def longest_pause() -> timedelta:
    """No sign-up is made due later than this."""
    return timedelta(seconds=live.RELAY_MAX_PAUSE * JITTER)


@dataclass(frozen=True, slots=True)
class DueEvent:
    """An event to publish again: auth's present record, and the services that have not answered."""

    signup_id: UUID
    record: User
    attempt: int
    services: list[str]


def claim_due(*, limit: int) -> list[DueEvent]:
    """Claims at most `limit` sign-ups whose event is due, for this caller alone, and makes them due later.

    One that has had all its tries, or whose record is gone, is stalled instead: visible, no longer due, and taken
    up by a replay.
    """
    return atomically(lambda: _claim(limit), using=DATABASE)


def _claim(limit: int) -> list[DueEvent]:
    now = timezone.now()
    waiting = SignUp.objects.select_for_update(skip_locked=True).order_by("next_due_at")
    due = list(waiting.filter(next_due_at__lte=now)[:limit])
    # Further ahead than any pause: the clock that said so has been put back since (docs/adr/0017).
    due += waiting.filter(next_due_at__gt=now + longest_pause())[: limit - len(due)]
    records = records_of({signup.owner_signup_id for signup in due})
    events = []
    for signup in due:
        record = records.get(signup.owner_signup_id)
        if record is None or signup.attempts >= live.RELAY_MAX_ATTEMPTS:
            signup.stalled_at, signup.next_due_at = now, None
            continue
        signup.attempts += 1
        signup.next_due_at = now + pause_after(signup.attempts)
        events.append(DueEvent(signup.id, record, signup.attempts, signup.state.pending))
    overwrite(due, fields=["attempts", "next_due_at", "stalled_at"], using=DATABASE)
    return events


def give_back_tries(signup_ids: Sequence[UUID]) -> None:
    """Uncounts the last try of these sign-ups, which went nowhere. They stay due when they are."""
    atomically(
        lambda: SignUp.objects.filter(id__in=signup_ids, attempts__gt=1).update(attempts=F("attempts") - 1),
        using=DATABASE,
    )


def ask_again(signup_ids: Collection[UUID]) -> None:
    """Gives those that are incomplete all their tries again."""
    atomically(lambda: _ask_again(signup_ids), using=DATABASE)


def _ask_again(signup_ids: Collection[UUID]) -> None:
    incomplete = SignUp.objects.filter(id__in=signup_ids, pending_count__gt=0)
    incomplete.update(attempts=1, next_due_at=timezone.now() + pause_after(1), stalled_at=None)


def ask_also(signup_ids: Sequence[UUID], *, service: str) -> list[SignUpState]:
    """Gives those that never asked `service` its light, pending, and all their tries again: so a service that was added
    later is filled with the users that were there before. Returns the states of those."""
    return atomically(lambda: _ask_also(signup_ids, service), using=DATABASE)


def _ask_also(signup_ids: Sequence[UUID], service: str) -> list[SignUpState]:
    now = timezone.now()
    lacking = SignUp.objects.filter(id__in=signup_ids).exclude(lights__has_key=service)
    signups = list(lacking.select_for_update().order_by("id"))
    for signup in signups:
        signup.take(signup.state.asking(service), at=now)
        signup.attempts, signup.next_due_at, signup.stalled_at = 1, now + pause_after(1), None
    overwrite(signups, fields=[*SignUp.STATE_FIELDS, "attempts"], using=DATABASE)
    return [signup.state for signup in signups]


def count_incomplete() -> dict[str, int]:
    """How many sign-ups wait for a verdict: `waiting` were asked lately, `due` are to be asked again now, `stalled` are
    asked no more. Each is counted in an index of its own few rows."""
    now = timezone.now()
    return {
        "waiting": SignUp.objects.filter(next_due_at__gt=now).count(),
        "due": SignUp.objects.filter(next_due_at__lte=now).count(),
        "stalled": SignUp.objects.filter(stalled_at__isnull=False).count(),
    }


def records_of(owners: Collection[UUID]) -> dict[UUID, User]:
    """Auth's present records that these sign-ups made, by sign-up; with the fields that an event carries."""
    users = User.objects.filter(owner_signup_id__in=owners)
    return {user.owner_signup_id: user for user in users.only(*EVENT_FIELDS)}
