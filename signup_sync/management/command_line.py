"""Runs every command with shell-friendly errors: one line and an exit code for any problem that is not a bug.

A bug still ends with its traceback. Commands report their own errors with CommandError.
"""

import errno
import io
import os
import select
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, TextIO

from django.core.exceptions import ImproperlyConfigured

from runtime.text_length import refusal_of_arguments

# The only settings module. DJANGO_SETTINGS_MODULE may still be set for another project.
SETTINGS: Final = "signup_sync.settings"
# Exit codes that shells report for a process ended by SIGINT or SIGPIPE: 128 plus the signal's number.
INTERRUPTED, CLOSED_PIPE = 130, 141
# argparse's exit code.
WRONG_ARGUMENTS: Final = 2
# Error numbers of writes to a disk that is full, broken or over quota.
DISK_ERRORS: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG})


def main(arguments: Sequence[str]) -> int:
    """Run one command with the arguments of `manage.py`, and return the exit code."""
    os.environ["DJANGO_SETTINGS_MODULE"] = SETTINGS
    open_standard_streams()
    try:
        if refusal := refusal_of_arguments(arguments[1:]):
            fail(refusal)
            return WRONG_ARGUMENTS
        code = run([decode_argument(each) for each in arguments])
        sys.stdout.flush()
    except KeyboardInterrupt:
        code = INTERRUPTED
    except OSError as error:
        if not (code := code_of_failed_output(error)):
            raise
    finally:
        silence_failed_streams()
    return code


def run(arguments: Sequence[str]) -> int:
    """Run the command. Print one line for a problem that the user or operator must fix."""
    try:
        # Import inside the try block: it takes half a second, in which the user may press Ctrl-C.
        from signup_sync.management.strict_commands import StrictCommands

        StrictCommands(list(arguments)).execute()
    except SystemExit as end:
        return exit_code(end)
    except Exception as error:
        if not (line := explanation(error)):
            raise
        return fail(line)
    return 0


def explanation(error: Exception) -> str:
    """Return one line that says what the user should fix, or "" if the error may be a bug."""
    if isinstance(error, ImproperlyConfigured):
        return str(error)
    if isinstance(error, ModuleNotFoundError) and error.name and is_settings_module(error.name):
        return f"There is no settings module {os.environ['DJANGO_SETTINGS_MODULE']}: leave out --settings."
    if isinstance(error, OverflowError):
        return f"A number or a time is larger than can be stored: {error}."
    from django.db import DatabaseError, InterfaceError
    from psycopg.errors import DatetimeFieldOverflow, NumericValueOutOfRange
    from psycopg_pool import PoolTimeout

    if isinstance(error.__cause__, DatetimeFieldOverflow | NumericValueOutOfRange):
        return f"A number or a time is larger than can be stored: {' '.join(str(error).split())}"
    if isinstance(error, DatabaseError | InterfaceError | PoolTimeout):
        return explanation_of_database_error(error)
    return ""


def explanation_of_database_error(error: Exception) -> str:
    """Name the database that lacks tables or can't be reached. Return "" for an error in the SQL or the data."""
    from django.db import Error, InterfaceError, OperationalError, connections
    from django.db.migrations.executor import MigrationExecutor
    from psycopg_pool import PoolTimeout

    from runtime.errors import in_one_line
    from signup_sync.routers import service_of

    reason = in_one_line(error)
    with suppress(Error, PoolTimeout):
        for connection in connections.all():
            executor = MigrationExecutor(connection)
            if executor.migration_plan(executor.loader.graph.leaf_nodes()):
                return (
                    f"The database of {service_of(connection.alias)} lacks tables of this version ({reason})."
                    " Start `make run` once, or run `manage.py migrate_all`."
                )
    if isinstance(error, OperationalError | InterfaceError | PoolTimeout):
        return f"A database can't be used now: {reason}"
    return ""


def is_settings_module(name: str) -> bool:
    settings = os.environ["DJANGO_SETTINGS_MODULE"]
    return settings != SETTINGS and (settings == name or settings.startswith(f"{name}."))


# --- Arguments and streams --------------------------------------------------------------------------------------


def decode_argument(argument: str) -> str:
    r"""Decode the argument as UTF-8, whatever the locale. An invalid byte becomes, for example, `\xb9`, which can be
    stored, compared and printed, unlike the surrogates to which Python decodes it."""
    return os.fsencode(argument).decode(errors="backslashreplace")


def open_standard_streams() -> None:
    """Make the streams escape characters that they can't encode or decode. Replace a closed stream by /dev/null;
    otherwise the next file or socket to be opened would get its descriptor."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8"))
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def code_of_failed_output(error: OSError) -> int:
    """Return the exit code if the output's reader has gone or the disk failed (which is reported), or else 0."""
    if isinstance(error, BrokenPipeError) and any(has_no_reader(stream) for stream in (sys.stdout, sys.stderr)):
        return CLOSED_PIPE
    if error.errno in DISK_ERRORS:
        return fail(f"{error.filename or 'The output'} can't be written: {error.strerror}.")
    return 0


def has_no_reader(stream: TextIO) -> bool:
    poll = select.poll()
    poll.register(stream.fileno(), 0)
    return bool(poll.poll(0))


def silence_failed_streams() -> None:
    """Redirect a stream that can't be flushed to /dev/null: Python would try again at exit, and complain."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, stream.fileno())
            os.close(null)


def exit_code(end: SystemExit) -> int:
    """Return the exit code as Python does: a text is printed and means 1."""
    if end.code is None or isinstance(end.code, int):
        return end.code or 0
    return fail(str(end.code))


def fail(line: str) -> int:
    with suppress(OSError):
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()
    return 1
