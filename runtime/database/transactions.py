"""Transactions that are retried after a conflict with other writers."""

import logging
import random
import time
from collections.abc import Callable
from functools import wraps
from typing import Final, ParamSpec, TypeVar

from django.db import Error, IntegrityError, OperationalError, connections, transaction

from runtime.database.postgresql.base import has_ended
from runtime.errors import CrossedError

logger = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")

ATTEMPTS_MAX: Final = 8
# SQLSTATE of a unique violation, a deadlock and a serialization failure; SQLite has two names for the first.
_CROSSED: Final = ("23505", "40P01", "40001", "SQLITE_CONSTRAINT_UNIQUE", "SQLITE_CONSTRAINT_PRIMARYKEY")


def atomically(using: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Run each call of the decorated function in a transaction on the database `using`, and retry it from the start if
    another writer conflicts.

    Two batches that insert the same unique values can violate each other's constraints or deadlock. Either way the data
    that was read is stale, so the function reads and decides again. It must have no effects outside the database.
    Raises CrossedError after ATTEMPTS_MAX conflicts, and every other error unchanged.
    """

    def retried(work: Callable[P, T]) -> Callable[P, T]:
        @wraps(work)
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            leave_ended_connection(using)
            for attempt in range(1, ATTEMPTS_MAX + 1):
                try:
                    with transaction.atomic(using=using):
                        return work(*args, **kwargs)
                except (IntegrityError, OperationalError) as error:
                    _must_be_crossed(error, using, attempt)
                # A random pause keeps two batches from conflicting again in lockstep.
                time.sleep(random.uniform(0, 0.01 * attempt))  # noqa: S311 - jitter, not a secret
            raise CrossedError(f"the transaction on {using} conflicted with other writers {ATTEMPTS_MAX} times")

        return call

    return retried


def unless_crossed(work: Callable[[], T], *, otherwise: T, using: str) -> T:
    """Run `work`, which must be atomic by itself, like a single statement; return `otherwise` on a conflict.

    A single statement takes one round trip to the database; a transaction around it would take three."""
    leave_ended_connection(using)
    try:
        return work()
    except (IntegrityError, OperationalError) as error:
        _must_be_crossed(error, using, attempt=1)
        return otherwise


def leave_ended_connection(using: str) -> None:
    """Close this thread's connection if PostgreSQL has ended it, so that the next query gets a new one.

    For threads that keep their connection between batches: borrowing one for each batch would add a round trip to each
    step of a sign-up.
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
    """Whether another writer caused the error: a unique violation, a deadlock or a serialization failure."""
    cause = error.__cause__
    return (getattr(cause, "sqlstate", None) or getattr(cause, "sqlite_errorname", None)) in _CROSSED


def _must_be_crossed(error: Error, using: str, attempt: int) -> None:
    """Raise the error unless it is a conflict with another writer, which is logged."""
    if not is_crossed(error):
        raise error
    logger.info("transaction on %s conflicted (attempt %d): %s", using, attempt, type(error).__name__)
