"""Checks the databases of the local installation, and applies the migrations of this version."""

import os
import shlex
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from django.apps import apps
from django.core.management import call_command
from django.db import Error, connections, router
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.executor import MigrationExecutor

from runtime.errors import in_one_line
from signup_sync.local.preconditions import CannotStart
from signup_sync.routers import service_of


def prepare_databases(tell: Callable[[str], None]) -> None:
    """Check and migrate each database. Raises CannotStart."""
    for connection in connections.all():
        service = service_of(connection.alias)
        if connection.vendor == "sqlite":
            check_sqlite(Path(connection.settings_dict["NAME"]))
        try:
            if _has_pending_migrations(connection):
                tell(f"Preparing the database of {service} ...")
            elif missing := _missing_tables(connection):
                raise CannotStart(_another_services(connection, sorted(missing)))
            # Run it even if nothing is pending: an interrupted start may not have created the permissions.
            call_command("migrate", database=connection.alias, interactive=False, verbosity=0)
        except Error as error:
            reason = in_one_line(error)
            raise CannotStart(f"The database of {service} can't be prepared: {reason}") from error
        finally:
            connection.close()


def _has_pending_migrations(connection: BaseDatabaseWrapper) -> bool:
    executor = MigrationExecutor(connection)
    return bool(executor.migration_plan(executor.loader.graph.leaf_nodes()))


def _missing_tables(connection: BaseDatabaseWrapper) -> set[str]:
    """Return the tables that are missing. Each database records the migrations of every service, so another service's
    database would look as if nothing were pending."""
    wanted = {
        model._meta.db_table
        for model in apps.get_models(include_auto_created=True)
        if model._meta.can_migrate(connection) and router.allow_migrate_model(connection.alias, model)
    }
    return wanted - set(connection.introspection.table_names())


def _another_services(connection: BaseDatabaseWrapper, missing: Sequence[str]) -> str:
    service, name = service_of(connection.alias), connection.settings_dict["NAME"]
    said = f"The database {name} is not that of {service}: it has no table {missing[0]}. Put the right one there"
    return f"{said}, or begin with an empty one: {_move_away(Path(name))}" if connection.vendor == "sqlite" else said


def check_sqlite(file: Path) -> None:
    """Raise CannotStart if `file` exists but is not an intact SQLite database that this user can read and write."""
    if file.exists() and (fault := _fault_of(file)):
        raise CannotStart(
            f"The database {file} can't be used ({fault}). Move it away and start again: {_move_away(file)}"
        )


def _move_away(file: Path) -> str:
    return f"mv {shlex.quote(str(file))} {shlex.quote(f'{file}.broken')}"


def _fault_of(file: Path) -> str | None:
    if not os.access(file, os.R_OK | os.W_OK):
        return "this user may not read and write it"
    try:
        # mode=rw, because the default mode would create a file that has been deleted meanwhile.
        with closing(sqlite3.connect(f"file:{quote(str(file))}?mode=rw", uri=True)) as connection:
            (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.Error as error:
        return str(error)
    return None if verdict == "ok" else in_one_line(verdict)
