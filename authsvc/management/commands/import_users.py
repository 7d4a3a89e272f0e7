"""`manage.py import_users`: create users from a CSV or JSON lines file, each with a sign-up."""

import logging
import os
import sqlite3
import stat
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, Final

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import Error
from psycopg_pool import PoolTimeout
from tqdm import tqdm

from authsvc.models import Role, User
from authsvc.signups.registration import NewSignUp
from authsvc.user_import.formats import COLUMNS, Format, format_of
from authsvc.user_import.importing import ImportCounts, UserImport
from authsvc.user_import.paced_events import PacedEvents
from authsvc.user_import.rejects import Rejects, RejectsError
from authsvc.user_import.spool import Spool
from authsvc.user_import.text_lines import LineReader, UnreadableFileError
from runtime.equality import user_id_key
from runtime.errors import TransientError
from runtime.security_log import log_security_event, operator
from runtime.terminal import printable, user_id_argument

STDIN: Final = "-"
AGAIN: Final = "Run the same command again to continue."
# Records between two updates of the progress bar, which costs more than checking a record.
SHOWN_EVERY: Final = 1000


class Command(BaseCommand):
    help = (
        f"Create users from a file in UTF-8: CSV whose first line names the columns ({', '.join(COLUMNS)}; the last "
        "two are optional), or one JSON object per line with members of these names. All lines are checked first. "
        "Each new user is a sign-up with a light per service; rejected lines are written to another file, with the "
        "reasons. The command can be interrupted and run again: users that were imported before are skipped, and no "
        "existing user is changed. The exit code is 1 if lines were rejected."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", metavar="FILE", help="the file, or - for standard input")
        parser.add_argument("--dry-run", action="store_true", help="check everything and write only the rejected lines")
        parser.add_argument(
            "--rejected",
            type=Path,
            metavar="PATH",
            help="the file for rejected lines; default: FILE with .rejected before its extension, or in the "
            "current directory if the input is a pipe. An existing file is kept, and the new one gets a number",
        )
        parser.add_argument(
            "--on-behalf-of",
            type=user_id_argument,
            metavar="USER_ID",
            help=f"an administrator who may add others; needed for lines with {Role.ADMIN}",
        )

    def handle(
        self, *, file: str, dry_run: bool, rejected: Path | None, on_behalf_of: str | None, **options: Any
    ) -> None:
        administrator = _administrator(on_behalf_of) if on_behalf_of else None
        if sys.stderr.isatty():
            # The progress bar shows this, and log lines with a hundred IDs each would bury it.
            logging.getLogger("authsvc.user_import").setLevel(logging.WARNING)
        try:
            with _opened(file) as opened:
                lines = LineReader(opened)
                format_ = format_of(lines)
                size = _size(opened)
                # A pipe, such as <(...) of a shell, is in a folder where no file can be.
                given = Path(f"import.{format_.suffix}" if file == STDIN or size is None else file)
                with Spool() as spool, closing(_rejects(given, rejected, format_)) as rejects:
                    users = UserImport(format_, spool, rejects, may_add_admins=administrator is not None)
                    total = _check(users, lines, size)
                    self._import(users, total, administrator, is_dry=dry_run)
        except UnreadableFileError as error:
            raise CommandError(f"Nothing was imported. {printable(str(error))}") from error
        except RejectsError as error:
            raise CommandError(f"{printable(str(error))} Name another place with --rejected. {AGAIN}") from error
        except sqlite3.OperationalError as error:
            raise CommandError(f"The temporary file can't be used: {error}. Set TMPDIR. {AGAIN}") from error
        except TransientError as error:
            raise CommandError(f"{error} {AGAIN}") from error
        except (KeyboardInterrupt, Error, PoolTimeout):
            self.stderr.write(f"Interrupted. {AGAIN}")
            raise

    def _import(self, users: UserImport, checked: ImportCounts, administrator: User | None, *, is_dry: bool) -> None:
        if not checked.total:
            raise UnreadableFileError("The file has no users.")
        # Records that would be imported are counted again, by their result.
        total = replace(checked, imported=0)
        with tqdm(total=users.spool.count, unit=" users", desc="imported", disable=None) as progress:
            for counts in self._register(users, administrator, is_dry=is_dry):
                total += counts
                progress.update(counts.total)
        verb = "would be imported" if is_dry else "imported"
        self.stdout.write(f"{total.imported} {verb}, {total.known} known already, {total.rejected} rejected")
        if total.rejected:
            name = printable(users.rejects.name)
            raise CommandError(f"The rejected lines are in {name}: correct them and import that file.")

    def _register(self, users: UserImport, administrator: User | None, *, is_dry: bool) -> Iterator[ImportCounts]:
        if is_dry or not users.spool.count:
            yield from users.register(None, lambda _: None)
            return
        actor = f"{operator()}, for {administrator.user_id}" if administrator else operator()

        def log_admin(new: NewSignUp) -> None:
            log_security_event("privilege_granted", actor=actor, subject=new.user_id, detail=f"role: {new.role}")

        log_security_event("users_imported", actor=actor, detail=f"{users.spool.count} valid lines")
        with closing(PacedEvents()) as events:
            yield from users.register(events, log_admin)
        if events.left_out:
            self.stderr.write(f"{events.left_out} users reach the other services later, through the relay.")


def _check(users: UserImport, lines: LineReader, size: int | None) -> ImportCounts:
    total = ImportCounts()
    # disable=None: tqdm draws only on a terminal.
    with tqdm(total=size, unit="B", unit_scale=True, desc="checked", disable=None) as progress:
        for counts in users.check():
            total += counts
            if total.total % SHOWN_EVERY == 0:
                progress.update(lines.position - progress.n)
        progress.update(lines.position - progress.n)
    return total


def _administrator(user_id: str) -> User:
    """Return the administrator on whose behalf the import runs. Raise CommandError without the permission."""
    user = User.objects.filter(user_id_key=user_id_key(user_id)).first()
    if user is None or not (user.is_active and user.is_staff and user.has_perm("authsvc.add_admin")):
        log_security_event("privilege_refused", actor=operator(), subject=user_id, detail="import on behalf of")
        raise CommandError(f"{printable(user_id)} may not add administrators.")
    return user


def _opened(file: str) -> AbstractContextManager[BinaryIO]:
    if file == STDIN:
        return nullcontext(sys.stdin.buffer)
    try:
        return Path(file).open("rb")
    except OSError as error:
        raise CommandError(f"{printable(file)} can't be read: {error.strerror}.") from error


def _rejects(given: Path, path: Path | None, format_: Format) -> Rejects:
    """Return the file of rejected lines, by default beside `given`. Raise CommandError if its place is unsuitable."""
    if path is None:
        path = given.with_name(f"{given.stem}.rejected{given.suffix or f'.{format_.suffix}'}")
    if not path.name:
        raise CommandError(f"{printable(str(path))} is a directory: name a file with --rejected.")
    if not os.access(path.parent, os.W_OK):
        raise CommandError(f"{printable(str(path.parent))} is not writable: name another place with --rejected.")
    return Rejects(path, format_)


def _size(file: BinaryIO) -> int | None:
    status = os.fstat(file.fileno())
    return status.st_size if stat.S_ISREG(status.st_mode) else None
