"""Errors that any part can have, told apart by type: what passes by itself, and what never will."""

from collections.abc import Callable
from typing import Any, Final, TypeVar

import redis.exceptions
from django.db import DataError, Error, IntegrityError
from psycopg_pool import PoolTimeout


class TransientError(Exception):
    """The same work may succeed later: nothing is wrong with the message."""


class CrossedError(TransientError):
    """Other writers crossed each try of a transaction, or what it writes conflicts with what is there whoever tries."""


class PermanentError(Exception):
    """The message can never be handled."""


_TRANSIENT: Final = (
    TransientError,
    # Whatever a database says that is not about the data: also a standby's refusal to write after a failover, and a
    # table or a right that is missing. Nothing that Redis says is a message's fault.
    Error,
    PoolTimeout,
    redis.exceptions.RedisError,
    ConnectionError,
    TimeoutError,
)


ErrorT = TypeVar("ErrorT", bound=BaseException)
# By the type of an error: what tells whether trying again may help.
_rules: dict[type[BaseException], Callable[[Any], bool]] = {}


def set_transient_rule(kind: type[ErrorT], rule: Callable[[ErrorT], bool]) -> None:
    """From now on `rule` decides about errors of this type. For errors of libraries that this layer does not know."""
    _rules[kind] = rule


def is_transient(error: BaseException) -> bool:
    """Whether trying again later may help."""
    for kind, rule in _rules.items():
        if isinstance(error, kind):
            return rule(error)
    return isinstance(error, _TRANSIENT) and not isinstance(error, DataError | IntegrityError)
