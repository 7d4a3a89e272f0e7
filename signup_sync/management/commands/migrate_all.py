"""`manage.py migrate_all`: migrate every service's database, one after another."""

from typing import Any

from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import Error, connections

from runtime.errors import in_one_line
from signup_sync.routers import service_of


class Command(BaseCommand):
    help = (
        "Migrate every service's database to this version. After a failure, run it again; finished migrations are kept."
    )
    requires_system_checks = ()  # `migrate` runs the relevant ones

    def handle(self, *args: Any, verbosity: int, **options: Any) -> None:
        for alias in connections:
            if verbosity:
                self.stdout.write(f"The database of {service_of(alias)}:")
            try:
                call_command("migrate", database=alias, interactive=False, verbosity=verbosity)
            except Error as error:
                reason = in_one_line(error)
                raise CommandError(
                    f"The database of {service_of(alias)} can't be migrated: {reason} (--traceback shows more)"
                ) from error
