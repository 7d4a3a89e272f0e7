"""What every command owes a person's shell, at one place: one line and an exit code for what is no bug of the product.

A bug still ends with its traceback. Each command reports its own refusals with CommandError.
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

from runtime.untrusted import refusal_of_arguments

# The only settings module: one that another project's shell names is not ours.
SETTINGS: Final = "signup_sync.settings"
# What shells report for a process that SIGINT or SIGPIPE ended: 128 and the signal's number.
INTERRUPTED, CLOSED_PIPE = 130, 141
# argparse's exit code.
WRONG_ARGUMENTS: Final = 2
# What writing fails with where a disk is full, broken or limited.
DISK_ERRORS: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG})


def main(arguments: Sequence[str]) -> int:
    """Runs one command, as `manage.py` was given it, and returns the exit code."""
    os.environ["DJANGO_SETTINGS_MODULE"] = SETTINGS
    open_standard_streams()
    try:
        if refusal := refusal_of_arguments(arguments[1:]):
            fail(refusal)
            return WRONG_ARGUMENTS
        code = run([readable(each) for each in arguments])
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
    """Runs the command. Prints one line for what the person or the installation must put right."""
    try:
        # Within reach of the handlers below: it takes half a second, in which somebody may press Ctrl-C.
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
    """What the person should put right, as one line. Empty for what may be a bug."""
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
    """Names the database that has no tables yet or can't be reached. Empty for an error in the SQL or the data."""
    from django.db import Error, InterfaceError, OperationalError, connections
    from django.db.migrations.executor import MigrationExecutor
    from psycopg_pool import PoolTimeout

    from signup_sync.routers import service_of

    reason = " ".join(str(error).split())
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


def readable(argument: str) -> str:
    r"""The argument as UTF-8, whatever the locale says. A byte that is not UTF-8 becomes `\xb9`, which can be stored,
    compared and printed where the surrogates that Python makes of it can not."""
    return os.fsencode(argument).decode(errors="backslashreplace")


def open_standard_streams() -> None:
    """Has the streams replace what they can't show or read. One that is closed becomes /dev/null, or the next file or
    socket that is opened would take its place."""
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
    """The exit code where the reader of the output has gone or a disk is full, which is said; else 0."""
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
    """Sends what a stream could not write to /dev/null: Python would try again at its end, and complain."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, stream.fileno())
            os.close(null)


def exit_code(end: SystemExit) -> int:
    """As Python itself has it: a text is printed and means 1."""
    if end.code is None or isinstance(end.code, int):
        return end.code or 0
    return fail(str(end.code))


def fail(line: str) -> int:
    with suppress(OSError):
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()
    return 1
