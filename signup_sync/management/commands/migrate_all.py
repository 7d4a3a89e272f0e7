"""`manage.py migrate_all`: every service's database, one after another."""

from typing import Any

from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import Error, connections

from signup_sync.routers import service_of


class Command(BaseCommand):
    help = "Brings every service's database to this version. Run it again after a failure: what is done stays done."
    requires_system_checks = ()  # `migrate` runs those that concern it

    def handle(self, *args: Any, verbosity: int, **options: Any) -> None:
        for alias in connections:
            if verbosity:
                self.stdout.write(f"The database of {service_of(alias)}:")
            try:
                call_command("migrate", database=alias, interactive=False, verbosity=verbosity)
            except Error as error:
                reason = " ".join(str(error).split())
                raise CommandError(
                    f"The database of {service_of(alias)} can't be migrated: {reason} (--traceback says more)"
                ) from error
