"""The outbox: when the event of a sign-up, change or removal is due again, and claiming due events for the relay
(docs/adr/0002)."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from random import uniform
from typing import Final
from uuid import UUID

from django.db.models import F
from django.utils import timezone

from authsvc.lights import Kind, TransactionState
from authsvc.models import DATABASE, EventTransaction, SignUp, User
from livesettings.values import live
from runtime.backoff import doubled
from runtime.database.bulk_sql import overwrite
from runtime.database.transactions import atomically

# A pause is multiplied by a random factor between 1 and this.
JITTER: Final = 1.1
EVENT_FIELDS: Final = ("owner_signup_id", "version", *User.SYNCHRONISED)


def wait_for_answers_after(attempt: int) -> timedelta:
    """Return the time to wait for answers after the n-th attempt: exponential backoff with up to 10 % jitter."""
    seconds = doubled(live.RELAY_FIRST_PAUSE, times=attempt - 1, most=live.RELAY_MAX_PAUSE)
    return timedelta(seconds=seconds * uniform(1, JITTER))  # noqa: S311 - jitter, not a secret


def longest_pause() -> timedelta:
    """The longest time ahead at which an event can become due."""
    return timedelta(seconds=live.RELAY_MAX_PAUSE * JITTER)


@dataclass(frozen=True, slots=True)
class DueEvent:
    """An event to publish again: auth's current record (None for a removal) and the services that have not answered."""

    transaction: EventTransaction
    record: User | None
    attempt: int
    services: list[str]


@atomically(DATABASE)
def claim_due(*, limit: int) -> list[DueEvent]:
    """Claim at most `limit` transactions whose event is due, exclusively for this caller, and postpone their next
    attempt.

    One that has used up its attempts, or whose user is gone, becomes stalled instead: it is shown as such, no
    longer due, and only a replay resumes it.
    """
    now = timezone.now()
    waiting = EventTransaction.objects.select_for_update(skip_locked=True).order_by("next_due_at")
    due = list(waiting.filter(next_due_at__lte=now)[:limit])
    # Due further ahead than any pause allows: the clock has been set back since (docs/adr/0017).
    due += waiting.filter(next_due_at__gt=now + longest_pause())[: limit - len(due)]
    records = records_of({row.owner_signup_id for row in due})
    events = []
    for row in due:
        record = records.get(row.owner_signup_id)
        if (record is None and row.kind != Kind.REMOVAL) or row.attempts >= live.RELAY_MAX_ATTEMPTS:
            row.stalled_at, row.next_due_at = now, None
            continue
        row.attempts += 1
        row.next_due_at = now + wait_for_answers_after(row.attempts)
        events.append(DueEvent(row, record, row.attempts, row.state.pending))
    overwrite(due, fields=["attempts", "next_due_at", "stalled_at"], using=DATABASE)
    return events


@atomically(DATABASE)
def give_back_attempts(transaction_ids: Sequence[UUID]) -> None:
    """Take back the last attempt of these transactions, which never reached Kafka. Their due times stay the same."""
    EventTransaction.objects.filter(id__in=transaction_ids, attempts__gt=1).update(attempts=F("attempts") - 1)


@atomically(DATABASE)
def ask_again(transaction_ids: Collection[UUID]) -> None:
    """Reset the attempts of those transactions that are incomplete."""
    incomplete = EventTransaction.objects.filter(id__in=transaction_ids, pending_count__gt=0)
    incomplete.update(attempts=1, next_due_at=timezone.now() + wait_for_answers_after(1), stalled_at=None)


@atomically(DATABASE)
def ask_also(signup_ids: Sequence[UUID], *, service: str) -> list[TransactionState]:
    """Backfill: add a pending light for `service` to those sign-ups that lack it, and reset their attempts, so that a
    service added later receives the existing users. Return the states of the changed sign-ups. Those of accounts that
    were removed meanwhile stay complete."""
    now = timezone.now()
    lacking = SignUp.objects.filter(id__in=signup_ids).exclude(user_id_key="").exclude(lights__has_key=service)
    signups = list(lacking.select_for_update().order_by("id"))
    for signup in signups:
        signup.take(signup.state.asking(service), at=now)
        signup.attempts, signup.next_due_at, signup.stalled_at = 1, now + wait_for_answers_after(1), None
    overwrite(signups, fields=[*EventTransaction.STATE_FIELDS, "attempts"], using=DATABASE)
    return [signup.state for signup in signups]


def count_incomplete() -> dict[str, int]:
    """Count the incomplete transactions: `waiting` for answers, `due` to be published again now, and `stalled`.

    Each count reads a small partial index."""
    now = timezone.now()
    return {
        "waiting": EventTransaction.objects.filter(next_due_at__gt=now).count(),
        "due": EventTransaction.objects.filter(next_due_at__lte=now).count(),
        "stalled": EventTransaction.objects.filter(stalled_at__isnull=False).count(),
    }


def records_of(owners: Collection[UUID]) -> dict[UUID, User]:
    """Return the users that these sign-ups created, by the sign-up's ID, with only the fields that an event carries."""
    users = User.objects.filter(owner_signup_id__in=owners)
    return {user.owner_signup_id: user for user in users.only(*EVENT_FIELDS)}
