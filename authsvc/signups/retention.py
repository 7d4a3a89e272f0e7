"""How long sign-ups are kept, and how they are purged.

A sign-up's row is what makes a repeated `POST /user` join and a late answer known. So it stays for longer than anything
about it can come again, which is checked when a process starts. What only a repeated `POST /user` needs of it is erased
as soon as its ticket has expired.
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
from django.db.models import Case, F, QuerySet, Value, When
from django.utils import timezone
from django.utils.translation import gettext as _

from authsvc.models import DATABASE, SignUp
from eventbus.topics import kept_for
from livesettings.values import LiveSettings, live, rule
from runtime.processes.roles import START_CHECKS

DAY: Final = timedelta(days=1)
# Seconds. An outage of so long is nobody's reason to replay (DESIGN, invariant 2).
TRIES_WORTH: Final = 600
# After so many doublings any first pause has reached any longest one.
GROWING_PAUSES: Final = 17


def replay_window(values: LiveSettings = live) -> timedelta:
    """How long after a sign-up began, at most, something about it can come again.

    It is retried for as long as its ticket is valid and sent for as long as the relay tries. A request may be read as
    long as Kafka keeps it, and its answer as long again; and both begin anew when a dead letter is replayed on its last
    day.
    """
    relay = timedelta(seconds=values.RELAY_MAX_ATTEMPTS * values.RELAY_MAX_PAUSE * 1.1)
    ticket = timedelta(seconds=settings.TICKET_MAX_AGE)
    return relay + ticket + timedelta(days=settings.DEAD_LETTER_RETENTION) + 2 * kept_for()


@register(START_CHECKS)
def check_retention(**options: Any) -> list[CheckMessage]:
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


@rule
def check_relay(values: LiveSettings) -> Iterator[tuple[tuple[str, ...], str]]:
    """What keeps administrators from live settings of the relay that don't fit each other, or the retention."""
    names = ("RELAY_FIRST_PAUSE", "RELAY_MAX_PAUSE", "RELAY_MAX_ATTEMPTS")
    if values.RELAY_FIRST_PAUSE > values.RELAY_MAX_PAUSE:
        yield names[:2], _("The first pause is longer than the longest.")
    elif (worth := seconds_of_tries(values)) < TRIES_WORTH:
        yield (
            names,
            _("The tries are used up after %(worth)d seconds; the least is %(least)d. Take more, or longer pauses.")
            % {"worth": worth, "least": TRIES_WORTH},
        )
    if timedelta(days=settings.SIGNUP_RETENTION) <= (window := replay_window(values)):
        yield (
            names[1:],
            _("Something about a sign-up could come again for %(window)d days, but it is purged after %(kept)d.")
            % {"window": in_days(window), "kept": settings.SIGNUP_RETENTION},
        )


def seconds_of_tries(values: LiveSettings) -> float:
    """From a sign-up's first try until it is stalled, without jitter."""
    pauses = (min(values.RELAY_FIRST_PAUSE * 2.0**n, values.RELAY_MAX_PAUSE) for n in range(GROWING_PAUSES))
    growing = list(islice(pauses, values.RELAY_MAX_ATTEMPTS))
    return sum(growing) + (values.RELAY_MAX_ATTEMPTS - len(growing)) * values.RELAY_MAX_PAUSE


def in_days(span: timedelta) -> int:
    """Whole days, begun ones too."""
    return -(-span // DAY)


def old_signups(before: datetime, *, incomplete: bool = False) -> QuerySet[SignUp]:
    """Those that were complete before then; with `incomplete` also those begun before then that never were."""
    # Nothing is complete before it began, and when it began has an index.
    signups = SignUp.objects.filter(created_at__lt=before).order_by("created_at")
    return signups.exclude(completed_at__gte=before) if incomplete else signups.filter(completed_at__lt=before)


def expired_signups() -> QuerySet[SignUp]:
    """Those that still have a hash, and a ticket that has expired, the oldest first."""
    before = timezone.now() - timedelta(seconds=settings.TICKET_MAX_AGE)
    return SignUp.objects.filter(password__gt="", created_at__lt=before).order_by("created_at")


def erase_expired(limit: int) -> int:
    """Erases what only a repeated `POST /user` needs from `limit` sign-ups at most whose ticket has expired, in one
    transaction; how many (docs/adr/0040).

    That is the password's hash, and of a sign-up that auth refused also the name and the address: somebody typed them
    for whom there is no account. A sign-up that somebody is working on just now is left for the next time.
    """
    with transaction.atomic(using=DATABASE):
        chosen = expired_signups().select_for_update(skip_locked=True)
        ids = list(chosen.values_list("id", flat=True)[:limit])
        of_owners = {
            name: Case(When(id=F("owner_signup_id"), then=F(name)), default=Value(""))
            for name in ("user_name", "email")
        }
        SignUp.objects.filter(id__in=ids).update(password="", **of_owners)
    return len(ids)


def purge_signups(before: datetime, limit: int, *, incomplete: bool = False) -> int:
    """Deletes old sign-ups, the oldest first and `limit` at most, in one transaction; how many.

    One that somebody is working on just now is left for the next time. The users stay; what administrators did to the
    sign-ups goes with them.
    """
    with transaction.atomic(using=DATABASE):
        chosen = old_signups(before, incomplete=incomplete).select_for_update(skip_locked=True)
        ids = list(chosen.values_list("id", flat=True)[:limit])
        SignUp.objects.filter(id__in=ids).delete()
        about = ContentType.objects.db_manager(DATABASE).get_for_model(SignUp)
        LogEntry.objects.filter(content_type=about, object_id__in=[str(each) for each in ids]).delete()
    return len(ids)
