"""`manage.py purge`: delete rows past their retention, once or at intervals."""

import argparse
import logging
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import Error, close_old_connections, connections
from django.utils import timezone
from tqdm import tqdm

from authsvc.accounts.sessions import SessionStore
from authsvc.models import DATABASE
from authsvc.signups.confirmation import delete_expired, expired
from authsvc.signups.retention import (
    check_retention,
    erase_expired,
    expired_signups,
    in_days,
    old_signups,
    purge_signups,
    replay_window,
)
from eventbus.deadletters.letters import purge_dead_letters
from eventbus.models import DeadLetter
from livesettings.following import check_once
from runtime.errors import TransientError, in_one_line, is_transient
from runtime.processes.roles import START_CHECKS, RunningRole, check_database, running_role

logger = logging.getLogger(__name__)

# Rows per transaction: few, so that no other transaction waits long.
BATCH: Final = 500
# Seconds between checks whether a purge is due, and the maximum delay before a failed purge is retried.
CHECK_INTERVAL: Final = 1.0
TRIED_AGAIN_AFTER: Final = 60.0
# Advisory lock in auth's database that a running purge holds: any number that nothing else there uses.
LOCK: Final = 4_802_201
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


class Command(BaseCommand):
    help = (
        "Delete complete sign-ups and dead letters that are older than SIGNUP_RETENTION and DEAD_LETTER_RETENTION, in "
        "short transactions, and expired sessions; erase the password hashes of sign-ups whose ticket has expired, if "
        "no relay has done so. The command can be interrupted and run again at any time. Users are kept, and so are "
        "incomplete and stalled sign-ups. Run it once a day, or keep it running with --every; it stops within 5 s "
        "after SIGTERM. On PostgreSQL only one purge runs at a time."
    )
    requires_system_checks = (START_CHECKS,)

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--older-than",
            type=int,
            metavar="DAYS",
            help="replaces both retention settings; must exceed the time in which messages about a sign-up can arrive",
        )
        parser.add_argument(
            "--incomplete",
            action="store_true",
            help="also delete sign-ups of that age that never completed, including stalled ones; their lights are lost",
        )
        kind = parser.add_mutually_exclusive_group()
        kind.add_argument("--dry-run", action="store_true", help="count what would be deleted, and delete nothing")
        kind.add_argument(
            "--every",
            type=duration_seconds,
            metavar="TIME",
            help="keep running and purge at this interval, such as 30m, 24h or 7d",
        )

    def handle(self, *, every: float | None, **options: Any) -> None:
        if every is not None:
            with running_role("purge") as role:
                self._purge_repeatedly(role, every, **options)
            return
        try:
            check_database("authsvc")
            self._purge(goes_on=lambda: True, **options)
        except TransientError as error:
            raise CommandError(str(error)) from error

    def _purge_repeatedly(self, role: RunningRole, every: float, **options: Any) -> None:
        def goes_on() -> bool:
            role.beat()
            return not role.stop.is_set()

        if not role.wait_for("its database", partial(check_database, "authsvc")):
            return
        role.ready()
        due_at = time.monotonic()
        while goes_on():
            if time.monotonic() >= due_at:
                due_at = time.monotonic() + every
                try:
                    self._purge(goes_on=goes_on, **options)
                except Exception as error:
                    if not is_transient(error):
                        raise
                    logger.warning("cannot purge now, will retry: %s", in_one_line(error))
                    due_at = time.monotonic() + min(every, TRIED_AGAIN_AFTER)
                finally:
                    close_old_connections()
            role.stop.wait(CHECK_INTERVAL)

    def _purge(
        self,
        *,
        goes_on: Callable[[], bool],
        older_than: int | None,
        incomplete: bool,
        dry_run: bool,
        **options: Any,
    ) -> None:
        # Live settings may extend the time for which sign-ups are sent again beyond that of settings.py.
        check_once()
        if errors := check_retention():
            raise CommandError("\n".join(str(error) for error in errors))
        signups_before = self._before(older_than, settings.SIGNUP_RETENTION)
        letters_before = self._before(older_than, settings.DEAD_LETTER_RETENTION)
        if older_than is not None and timedelta(days=older_than) <= (window := replay_window()):
            raise CommandError(
                f"--older-than must be more than {in_days(window)}: for that long, messages about a sign-up can "
                "still arrive, and without its row they would count as duplicates."
            )
        signups = old_signups(signups_before, incomplete=incomplete).count()
        letters = DeadLetter.objects.filter(put_aside_at__lt=letters_before).count()
        if not dry_run:
            with only_purge():
                purge_batch = partial(purge_signups, signups_before, BATCH, incomplete=incomplete)
                signups = purge("sign-ups", signups, purge_batch, goes_on)
                letters = purge("dead letters", letters, partial(purge_dead_letters, letters_before, BATCH), goes_on)
                # Relays do this every minute; it is repeated here for an installation whose relay was down.
                purge("hashes", expired_signups().count(), partial(erase_expired, BATCH), goes_on)
                purge("unconfirmed sign-ups", expired().count(), partial(delete_expired, BATCH), goes_on)
                # Expired sessions are found by an index, and nothing waits for their rows.
                SessionStore.clear_expired()
        verb = "would be deleted" if dry_run else "deleted"
        self.stdout.write(f"{signups} sign-ups and {letters} dead letters {verb}")

    def _before(self, older_than: int | None, retention: int) -> datetime:
        try:
            return timezone.now() - timedelta(days=retention if older_than is None else older_than)
        except OverflowError as error:
            raise CommandError("--older-than goes back before the year 1.") from error


def duration_seconds(text: str) -> float:
    """Parse a duration such as 90s, 30m, 24h or 7d into seconds."""
    found = re.fullmatch(r"(\d{1,6})([smhd])", text, re.ASCII)
    if not found or not int(found[1]):
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration: give a number with s, m, h or d, such as 24h")
    return int(found[1]) * _UNITS[found[2]]


@contextmanager
def only_purge() -> Iterator[None]:
    """Hold the purge lock. Raise TransientError if another purge holds it. SQLite serialises writers without it."""
    connection = connections[DATABASE]
    if connection.vendor != "postgresql":
        yield
        return
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(%s)", [LOCK])
        if cursor.fetchone() != (True,):
            raise TransientError("Another purge is already running.")
    try:
        yield
    finally:
        # A closed connection no longer holds the lock.
        with suppress(Error), connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_unlock(%s)", [LOCK])


def purge(what: str, total: int, delete_batch: Callable[[], int], goes_on: Callable[[], bool]) -> int:
    """Delete batches until none is left or `goes_on` returns False. Return how many rows were deleted."""
    deleted = 0
    # disable=None: tqdm draws only on a terminal.
    with tqdm(total=total, unit=f" {what}", disable=None) as progress:
        while goes_on() and (batch := delete_batch()):
            deleted += batch
            progress.update(batch)
    return deleted
