"""`manage.py purge`: deletes what has outlived its retention."""

from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone
from tqdm import tqdm

from authsvc.confirmation import delete_expired, expired
from authsvc.retention import (
    check_retention,
    erase_expired,
    expired_signups,
    in_days,
    old_signups,
    purge_signups,
    replay_window,
)
from authsvc.sessions import SessionStore
from eventbus.dead_letters import purge_dead_letters
from eventbus.models import DeadLetter
from livesettings.following import look_once

# Rows of one transaction: short, so that nobody waits for it.
BATCH: Final = 500


class Command(BaseCommand):
    help = (
        "Deletes complete sign-ups and dead letters that are older than SIGNUP_RETENTION and DEAD_LETTER_RETENTION, in "
        "short transactions, and sessions that have expired; erases the password hashes of sign-ups whose ticket has "
        "expired, where no relay has. It may be interrupted and run again at any time. The users stay, and so does a "
        "sign-up that is incomplete or stalled. Run it once a day."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--older-than",
            type=int,
            metavar="DAYS",
            help="in place of both retentions; a sign-up must be older than anything about it can come again",
        )
        parser.add_argument(
            "--incomplete",
            action="store_true",
            help="also sign-ups of that age that never became complete, stalled ones too; their lights are lost",
        )
        parser.add_argument("--dry-run", action="store_true", help="count what would be deleted, and delete nothing")

    def handle(self, *, older_than: int | None, incomplete: bool, dry_run: bool, **options: Any) -> None:
        # What administrators have set may make sign-ups come again for longer than settings.py alone would.
        look_once()
        if errors := check_retention():
            raise CommandError("\n".join(str(error) for error in errors))
        signups_before = self._before(older_than, settings.SIGNUP_RETENTION)
        letters_before = self._before(older_than, settings.DEAD_LETTER_RETENTION)
        if older_than is not None and timedelta(days=older_than) <= (window := replay_window()):
            raise CommandError(
                f"--older-than must be more than {in_days(window)}: for so many days something about a sign-up can "
                "come again, and without its row it would count as a duplicate."
            )
        signups = old_signups(signups_before, incomplete=incomplete).count()
        letters = DeadLetter.objects.filter(put_aside_at__lt=letters_before).count()
        if not dry_run:
            signups = purge("sign-ups", signups, partial(purge_signups, signups_before, BATCH, incomplete=incomplete))
            letters = purge("dead letters", letters, partial(purge_dead_letters, letters_before, BATCH))
            # Relays do this every minute; here it is for an installation whose relay was away.
            purge("hashes", expired_signups().count(), partial(erase_expired, BATCH))
            purge("unconfirmed sign-ups", expired().count(), partial(delete_expired, BATCH))
            # An expired session is a row that nobody waits for, and found by an index.
            SessionStore.clear_expired()
        verb = "would be deleted" if dry_run else "deleted"
        self.stdout.write(f"{signups} sign-ups and {letters} dead letters {verb}")

    def _before(self, older_than: int | None, retention: int) -> datetime:
        try:
            return timezone.now() - timedelta(days=retention if older_than is None else older_than)
        except OverflowError as error:
            raise CommandError("There was nothing so many days ago.") from error


def purge(what: str, total: int, delete_batch: Callable[[], int]) -> int:
    """Deletes until nothing is left; how many."""
    deleted = 0
    # On a terminal alone: tqdm draws nothing else where disable is None.
    with tqdm(total=total, unit=f" {what}", disable=None) as progress:
        while batch := delete_batch():
            deleted += batch
            progress.update(batch)
    return deleted
