"""`manage.py migrate_all`: every service's database, one after another."""

from typing import Any

from django.core.management.base import BaseCommand
from django.db import connections

from signup_sync.databases import migrate


class Command(BaseCommand):
    help = "Brings every service's database to this version. Run it again after a failure: what is done stays done."

    def handle(self, *args: Any, verbosity: int, **options: Any) -> None:
        for alias in connections:
            if verbosity:
                self.stdout.write(f"Database {alias}:")
            migrate(alias, verbosity=verbosity)
