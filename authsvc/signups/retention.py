"""Retention of sign-ups, and their purge.

A repeated `POST /user` or a late answer is recognised by the sign-up's row. The row must therefore outlive the last
possible repetition, which a check at start-up enforces. The data that only a repeated `POST /user` needs is erased as
soon as the ticket has expired.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, Final

from django.conf import settings
from django.contrib.admin.models import LogEntry
from django.contrib.contenttypes.models import ContentType
from django.core.checks import CheckMessage, Error, register
from django.db import transaction
from django.db.models import F, QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _

from authsvc.lights import Kind
from authsvc.models import DATABASE, EventTransaction, SignUp, erase_input
from eventbus.topics import kept_for
from livesettings.values import LiveSettings, live, rule
from runtime.backoff import DOUBLINGS_MAX, doubled
from runtime.processes.roles import START_CHECKS

DAY: Final = timedelta(days=1)
# Seconds. Retries must outlast an outage of this length, so that it needs no replay (docs/invariants.md, 2).
RETRIES_LAST_MIN: Final = 600


def replay_window(values: LiveSettings = live) -> timedelta:
    """The longest time after a sign-up began at which a message about it can still arrive.

    The client may repeat it while its ticket is valid, and the relay publishes it until its attempts are used up. Kafka
    keeps the request for its retention, and the answer for as long again; both start over when a dead letter is
    replayed on its last day.
    """
    relay = timedelta(seconds=values.RELAY_MAX_ATTEMPTS * values.RELAY_MAX_PAUSE * 1.1)
    ticket = timedelta(seconds=settings.TICKET_MAX_AGE)
    return relay + ticket + timedelta(days=settings.DEAD_LETTER_RETENTION) + 2 * kept_for()


@register(START_CHECKS)
def check_retention(**options: Any) -> list[CheckMessage]:
    """Keep every process from starting with retention settings that contradict each other."""
    errors: list[CheckMessage] = []
    if timedelta(days=settings.SIGNUP_RETENTION) <= (window := replay_window()):
        errors.append(
            Error(
                f"SIGNUP_RETENTION is {settings.SIGNUP_RETENTION} days, but messages about a sign-up can arrive for "
                f"{in_days(window)} days: after a purge, a repeated sign-up would be a duplicate of itself.",
                hint=f"Set SIGNUP_RETENTION to {window // DAY + 1} or more, or DEAD_LETTER_RETENTION or "
                "KAFKA_RETENTION_HOURS to less.",
                id="authsvc.E002",
            )
        )
    if timedelta(days=settings.DEAD_LETTER_RETENTION) <= kept_for():
        errors.append(
            Error(
                f"DEAD_LETTER_RETENTION is {settings.DEAD_LETTER_RETENTION} days, but Kafka keeps dead letters for "
                f"{in_days(kept_for())} days: a purged one could be collected again.",
                hint=f"Set DEAD_LETTER_RETENTION to {kept_for() // DAY + 1} or more, or KAFKA_RETENTION_HOURS to less.",
                id="authsvc.E003",
            )
        )
    return errors


@rule
def check_relay(values: LiveSettings) -> Iterator[tuple[tuple[str, ...], str]]:
    """Reject live settings of the relay that contradict each other or the retention."""
    names = ("RELAY_FIRST_PAUSE", "RELAY_MAX_PAUSE", "RELAY_MAX_ATTEMPTS")
    if values.RELAY_FIRST_PAUSE > values.RELAY_MAX_PAUSE:
        yield names[:2], _("The first pause is longer than the longest pause.")
    elif (worth := seconds_of_attempts(values)) < RETRIES_LAST_MIN:
        yield (
            names,
            _(
                "The attempts would be used up after %(worth)d seconds; the minimum is %(least)d. Set more "
                "attempts or longer pauses."
            )
            % {"worth": worth, "least": RETRIES_LAST_MIN},
        )
    if timedelta(days=settings.SIGNUP_RETENTION) <= (window := replay_window(values)):
        yield (
            names[1:],
            _(
                "Messages about a sign-up could still arrive for %(window)d days, but the sign-up is purged "
                "after %(kept)d."
            )
            % {"window": in_days(window), "kept": settings.SIGNUP_RETENTION},
        )


def seconds_of_attempts(values: LiveSettings) -> float:
    """Seconds from a sign-up's first attempt until it is stalled, without jitter."""
    pauses = (doubled(values.RELAY_FIRST_PAUSE, times=n, most=values.RELAY_MAX_PAUSE) for n in range(DOUBLINGS_MAX + 1))
    growing = list(islice(pauses, values.RELAY_MAX_ATTEMPTS))
    return sum(growing) + (values.RELAY_MAX_ATTEMPTS - len(growing)) * values.RELAY_MAX_PAUSE


def in_days(span: timedelta) -> int:
    """Return the span in days, rounded up."""
    return -(-span // DAY)


def old_signups(before: datetime, *, incomplete: bool = False) -> QuerySet[EventTransaction]:
    """Sign-ups, changes and removals completed before that time; if `incomplete`, also those that began before it and
    never completed."""
    # Filter by created_at first, which is indexed: no transaction can complete before it began. A removed account keeps
    # its own sign-up, so that nobody can use that ID for another account.
    rows = EventTransaction.objects.filter(created_at__lt=before).order_by("created_at")
    rows = rows.exclude(kind=Kind.SIGNUP, user_id_key="", id=F("owner_signup_id"))
    return rows.exclude(completed_at__gte=before) if incomplete else rows.filter(completed_at__lt=before)


def expired_signups() -> QuerySet[SignUp]:
    """Sign-ups that still have a password hash although their ticket has expired, oldest first."""
    before = timezone.now() - timedelta(seconds=settings.TICKET_MAX_AGE)
    return SignUp.objects.filter(password__gt="", created_at__lt=before).order_by("created_at")


def erase_expired(limit: int) -> int:
    """Erase the data that only a repeated `POST /user` needs from at most `limit` sign-ups whose ticket has expired, in
    one transaction. Return how many were changed. Sign-ups locked by another transaction are skipped until the next
    call."""
    with transaction.atomic(using=DATABASE):
        chosen = expired_signups().select_for_update(skip_locked=True)
        ids = list(chosen.values_list("id", flat=True)[:limit])
        erase_input(SignUp.objects.filter(id__in=ids))
    return len(ids)


def purge_signups(before: datetime, limit: int, *, incomplete: bool = False) -> int:
    """Delete at most `limit` old sign-ups, oldest first, in one transaction. Return how many were deleted.

    Sign-ups locked by another transaction are skipped until the next call. Users are kept; the admin log entries about
    the deleted sign-ups are deleted too.
    """
    with transaction.atomic(using=DATABASE):
        chosen = old_signups(before, incomplete=incomplete).select_for_update(skip_locked=True)
        ids = list(chosen.values_list("id", flat=True)[:limit])
        EventTransaction.objects.filter(id__in=ids).delete()
        about = ContentType.objects.db_manager(DATABASE).get_for_model(EventTransaction)
        LogEntry.objects.filter(content_type=about, object_id__in=[str(each) for each in ids]).delete()
    return len(ids)
