"""Errors told apart by type: what passes by itself and when to try it again, and what never will."""

import random
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

import redis.exceptions
from confluent_kafka import KafkaError, KafkaException
from django.db import DataError, Error, IntegrityError
from psycopg_pool import PoolTimeout

if TYPE_CHECKING:
    from eventbus.messages import Outgoing


class TransientError(Exception):
    """The same work may succeed later: nothing is wrong with the message."""


class CrossedError(TransientError):
    """Other writers crossed each try of a transaction, or what it writes conflicts with what is there whoever tries."""


class PermanentError(Exception):
    """The message can never be handled."""


class BugError(Exception):
    """The handler is at fault: so many messages failed unexpectedly that it can't be the messages."""


class DeliveryError(TransientError):
    """Kafka did not acknowledge the messages `failed`, or not in time; it may have them all the same."""

    def __init__(self, failed: "Sequence[Outgoing]", reason: str) -> None:
        super().__init__(f"{len(failed)} messages were not acknowledged by Kafka: {reason}")
        self.failed = failed


class TooLargeError(DeliveryError):
    """Kafka took none of `failed` because a message, or what was sent with it at once, is larger than its topic allows.

    For who sends on behalf of one message this is permanent (docs/adr/0018)."""


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
# KafkaError.retriable() is set for transactions and little else, so what passes by itself is named here.
_TRANSIENT_IN_KAFKA: Final = frozenset(
    {
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._MSG_TIMED_OUT,
        KafkaError._QUEUE_FULL,
        KafkaError._RESOLVE,
        KafkaError._TIMED_OUT,
        KafkaError._TIMED_OUT_QUEUE,
        KafkaError._TRANSPORT,
        KafkaError._WAIT_COORD,
        KafkaError.BROKER_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.ELIGIBLE_LEADERS_NOT_AVAILABLE,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.KAFKA_STORAGE_ERROR,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.LISTENER_NOT_FOUND,
        KafkaError.NETWORK_EXCEPTION,
        KafkaError.NOT_CONTROLLER,
        KafkaError.NOT_COORDINATOR,
        KafkaError.NOT_ENOUGH_REPLICAS,
        KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.OFFSET_NOT_AVAILABLE,
        KafkaError.REPLICA_NOT_AVAILABLE,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.THROTTLING_QUOTA_EXCEEDED,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.UNSTABLE_OFFSET_COMMIT,
    }
)


def is_transient(error: BaseException) -> bool:
    """Whether trying again later may help."""
    if isinstance(error, KafkaException):
        cause = error.args[0] if error.args else None
        return isinstance(cause, KafkaError) and is_transient_in_kafka(cause)
    return isinstance(error, _TRANSIENT) and not isinstance(error, DataError | IntegrityError)


def is_transient_in_kafka(error: KafkaError) -> bool:
    """The same for what Kafka reports."""
    return not is_fatal(error) and (error.retriable() or error.code() in _TRANSIENT_IN_KAFKA)


def is_fatal(error: KafkaError) -> bool:
    """Whether the client that reports it can do nothing any more."""
    return error.fatal() or error.code() == KafkaError._FATAL


def growing_pauses(*, first: float, most: float) -> Iterator[float]:
    """Seconds to wait before each further try, without end: any time up to a limit that doubles from `first` to `most`.

    Full jitter: those who failed together do not come back together.
    """
    limit = first
    while True:
        yield random.uniform(0, limit)  # noqa: S311 - jitter, not a secret
        limit = min(limit * 2, most)
