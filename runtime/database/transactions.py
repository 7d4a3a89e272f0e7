"""Work in one transaction that others may cross."""

import logging
import random
import time
from collections.abc import Callable
from typing import Final, TypeVar

from django.db import Error, IntegrityError, OperationalError, connections, transaction

from runtime.database.postgresql.base import has_ended
from runtime.errors import CrossedError

logger = logging.getLogger(__name__)
T = TypeVar("T")

TRIES: Final = 8
# SQLSTATE of a unique violation, a deadlock and a serialization failure; SQLite has two names for the first.
_CROSSED: Final = ("23505", "40P01", "40001", "SQLITE_CONSTRAINT_UNIQUE", "SQLITE_CONSTRAINT_PRIMARYKEY")


def atomically(work: Callable[[], T], *, using: str) -> T:
    """Runs `work` in a transaction on the database `using`, again from its start when another writer crossed it.

    Two batches that insert the same unique values can violate each other's constraints or deadlock; both mean that
    what was read no longer holds, so the whole of it is read and decided again. `work` must touch nothing but the
    database. Raises CrossedError when it was crossed TRIES times, and every other error as it is.
    """
    leave_ended_connection(using)
    for attempt in range(1, TRIES + 1):
        try:
            with transaction.atomic(using=using):
                return work()
        except (IntegrityError, OperationalError) as error:
            _must_be_crossed(error, using, attempt)
        # A pause that differs keeps two batches from crossing again in step.
        time.sleep(random.uniform(0, 0.01 * attempt))  # noqa: S311 - jitter, not a secret
    raise CrossedError(f"the transaction on {using} was crossed {TRIES} times")


def unless_crossed(work: Callable[[], T], *, otherwise: T, using: str) -> T:
    """Runs `work`, which writes all or nothing by itself, as one statement does: it takes one way to the database and
    back, where a transaction round it takes three. Returns `otherwise` where another writer crossed it."""
    leave_ended_connection(using)
    try:
        return work()
    except (IntegrityError, OperationalError) as error:
        _must_be_crossed(error, using, attempt=1)
        return otherwise


def leave_ended_connection(using: str) -> None:
    """Closes this thread's connection if PostgreSQL has ended it, so that the next query gets another.

    For threads that keep theirs between two batches: to borrow one for each would be one more round trip in each step
    of a sign-up.
    """
    wrapper = connections[using]
    if (
        wrapper.vendor == "postgresql"
        and wrapper.connection is not None
        and not wrapper.in_atomic_block
        and has_ended(wrapper.connection)
    ):
        wrapper.connection.close()
        wrapper.close()


def is_crossed(error: Error) -> bool:
    """Whether another writer came between: a unique violation, a deadlock or a serialization failure."""
    cause = error.__cause__
    return (getattr(cause, "sqlstate", None) or getattr(cause, "sqlite_errorname", None)) in _CROSSED


def _must_be_crossed(error: Error, using: str, attempt: int) -> None:
    """Raises the error if it is another one."""
    if not is_crossed(error):
        raise error
    logger.info("transaction on %s crossed (try %d): %s", using, attempt, type(error).__name__)
