"""`manage.py migrate` for databases in use: it waits for locks without making other transactions queue behind it."""

import random
import time
from typing import Any, Final

from django.core.management.base import CommandError
from django.core.management.commands import migrate
from django.db import OperationalError

# Maximum seconds between two attempts, and seconds after which it gives up.
LONGEST_PAUSE: Final = 5.0
TRIES_FOR: Final = 600.0
# PostgreSQL's codes for lock_not_available and deadlock_detected.
CROSSED: Final = ("55P03", "40P01")


class Command(migrate.Command):
    """Django's command, but it tries again if another transaction holds a lock that a migration needs.

    The migrations of this project can be rerun from the start (CONTRIBUTING.md); runtime.database.postgresql limits how
    long their statements wait for a lock.
    """

    def handle(self, *args: Any, **options: Any) -> Any:
        deadline = time.monotonic() + TRIES_FOR
        attempt = 1
        while True:
            try:
                return super().handle(*args, **options)
            except OperationalError as error:
                if getattr(error.__cause__, "sqlstate", None) not in CROSSED:
                    raise
                if time.monotonic() > deadline:
                    raise CommandError(
                        f"Another transaction has held a lock that the migration needs for {TRIES_FOR:g} s. "
                        "pg_stat_activity shows the oldest xact_start: end that session, and run this again."
                    ) from error
                self.stderr.write("Another transaction holds a lock that the migration needs; trying again ...")
            # Other transactions proceed between the attempts. The jitter avoids colliding with periodic ones.
            time.sleep(random.uniform(0.5, min(LONGEST_PAUSE, 0.5 + attempt)))  # noqa: S311 - jitter, not a secret
            attempt += 1
