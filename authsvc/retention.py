"""How long sign-ups are kept, and how they are purged.

A sign-up's row is what makes a repeated `POST /user` join and a late answer known. So it stays for longer than anything
about it can come again, which is checked when a process starts.
"""

from datetime import datetime, timedelta
from typing import Any, Final

from django.conf import settings
from django.core.checks import CheckMessage, Error, register
from django.db import transaction
from django.db.models import QuerySet

from authsvc.models import SignUp
from authsvc.services import DATABASE
from eventbus.topics import kept_for

TAG: Final = "retention"
DAY: Final = timedelta(days=1)


def replay_window() -> timedelta:
    """How long after a sign-up began, at most, something about it can come again.

    It is retried for as long as its ticket is valid and sent for as long as the relay tries. A request may be read as
    long as Kafka keeps it, and its answer as long again; and both begin anew when a dead letter is replayed on its last
    day.
    """
    relay = timedelta(seconds=settings.RELAY_MAX_ATTEMPTS * settings.RELAY_MAX_PAUSE * 1.1)
    ticket = timedelta(seconds=settings.TICKET_MAX_AGE)
    return relay + ticket + timedelta(days=settings.DEAD_LETTER_RETENTION) + 2 * kept_for()


@register(TAG)
def check_retention(**_: Any) -> list[CheckMessage]:
    """Errors that keep every process from starting, in words."""
    if settings.KAFKA_RETENTION_HOURS < 1:
        return [Error("KAFKA_RETENTION_HOURS is less than an hour.", hint="Set it to 1 or more.", id="authsvc.E001")]
    errors: list[CheckMessage] = []
    if timedelta(days=settings.SIGNUP_RETENTION) <= (window := replay_window()):
        errors.append(
            Error(
                f"SIGNUP_RETENTION is {settings.SIGNUP_RETENTION} days, but something about a sign-up can come again "
                f"for {in_days(window)} days: a purge would make a repeated sign-up a duplicate of itself.",
                hint=f"Set SIGNUP_RETENTION to {window // DAY + 1} or more, or DEAD_LETTER_RETENTION or "
                "KAFKA_RETENTION_HOURS to less.",
                id="authsvc.E002",
            )
        )
    if timedelta(days=settings.DEAD_LETTER_RETENTION) <= kept_for():
        errors.append(
            Error(
                f"DEAD_LETTER_RETENTION is {settings.DEAD_LETTER_RETENTION} days, but Kafka keeps dead letters for "
                f"{in_days(kept_for())} days: one that was purged could be collected again.",
                hint=f"Set DEAD_LETTER_RETENTION to {kept_for() // DAY + 1} or more, or KAFKA_RETENTION_HOURS to less.",
                id="authsvc.E003",
            )
        )
    return errors


def in_days(span: timedelta) -> int:
    """Whole days, begun ones too."""
    return -(-span // DAY)


def old_signups(before: datetime, *, incomplete: bool = False) -> QuerySet[SignUp]:
    """Those that were complete before then; with `incomplete` also those begun before then that never were."""
    # Nothing is complete before it began, and when it began has an index.
    signups = SignUp.objects.filter(created_at__lt=before).order_by("created_at")
    return signups.exclude(completed_at__gte=before) if incomplete else signups.filter(completed_at__lt=before)


def purge_signups(before: datetime, limit: int, *, incomplete: bool = False) -> int:
    """Deletes old sign-ups, the oldest first and `limit` at most, in one transaction; how many.

    One that somebody is working on just now is left for the next time. The users stay.
    """
    with transaction.atomic(using=DATABASE):
        chosen = old_signups(before, incomplete=incomplete).select_for_update(skip_locked=True)
        ids = list(chosen.values_list("id", flat=True)[:limit])
        SignUp.objects.filter(id__in=ids).delete()
    return len(ids)
