"""Errors that any part can have, classified as transient or permanent."""

from collections.abc import Callable
from typing import Any, Final, TypeVar

import redis.exceptions
from django.db import DataError, Error, IntegrityError
from psycopg_pool import PoolTimeout


class TransientError(Exception):
    """A failure that is not the message's fault: retrying the same work may succeed, but not within `retry_after`
    seconds, if a server asked for such a pause."""

    retry_after: float = 0.0


class CrossedError(TransientError):
    """Every attempt at a transaction conflicted: with concurrent writers, or with rows that exist anyway."""


class PermanentError(Exception):
    """The message can never be handled."""


def in_one_line(error: object) -> str:
    """Return the text of an error, whose line breaks become spaces, for a log line or a sentence."""
    return " ".join(str(error).split())


_TRANSIENT: Final = (
    TransientError,
    # Any database error that is not about the data (see is_transient), including a standby that refuses writes after a
    # failover, and a missing table or right. Redis errors are never a message's fault.
    Error,
    PoolTimeout,
    redis.exceptions.RedisError,
    ConnectionError,
    TimeoutError,
)


ErrorT = TypeVar("ErrorT", bound=BaseException)
# By the type of an error, the function that decides whether a retry may succeed.
_rules: dict[type[BaseException], Callable[[Any], bool]] = {}


def set_transient_rule(kind: type[ErrorT], rule: Callable[[ErrorT], bool]) -> None:
    """Register `rule` to classify errors of this type, for errors of libraries that this layer does not import."""
    _rules[kind] = rule


def is_transient(error: BaseException) -> bool:
    """Whether a retry may succeed."""
    for kind, rule in _rules.items():
        if isinstance(error, kind):
            return rule(error)
    return isinstance(error, _TRANSIENT) and not isinstance(error, DataError | IntegrityError)
