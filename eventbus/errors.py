"""Errors told apart by type: what passes by itself, and what never will."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import redis.exceptions
from confluent_kafka import KafkaException
from django.db import InterfaceError, OperationalError
from psycopg_pool import PoolTimeout

if TYPE_CHECKING:
    from eventbus.messages import Outgoing


class TransientError(Exception):
    """The same work may succeed later: nothing is wrong with the message."""


class PermanentError(Exception):
    """The message can never be handled."""


class DeliveryError(TransientError):
    """Kafka did not acknowledge these messages in time."""

    def __init__(self, failed: "Sequence[Outgoing]", reason: str) -> None:
        super().__init__(f"{len(failed)} messages were not acknowledged: {reason}")
        self.failed = failed


_TRANSIENT = (
    TransientError, OperationalError, InterfaceError, PoolTimeout, redis.exceptions.ConnectionError,
    redis.exceptions.TimeoutError, redis.exceptions.BusyLoadingError, ConnectionError, TimeoutError,
)  # fmt: skip


def is_transient(error: BaseException) -> bool:
    """Whether trying again later may help."""
    if isinstance(error, KafkaException):
        return bool(error.args and error.args[0].retriable())
    return isinstance(error, _TRANSIENT)
