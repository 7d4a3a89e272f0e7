"""Kafka's errors and which of them are transient. Errors that any part can have are in runtime.errors."""

from collections.abc import Sequence
from typing import Final

from confluent_kafka import KafkaError, KafkaException

from eventbus.messages import Outgoing
from runtime.errors import TransientError, set_transient_rule


class BugError(Exception):
    """So many messages failed unexpectedly that the handler must be at fault, not the messages."""


class StrandedError(Exception):
    """A client has lost Kafka for good, and must be replaced (eventbus.clients.is_stranded)."""

    def __init__(self) -> None:
        super().__init__("its client no longer reaches Kafka, although a new one does")


class DeliveryError(TransientError):
    """Kafka did not acknowledge the messages `failed`, or not in time. It may have stored them nonetheless."""

    def __init__(self, failed: Sequence[Outgoing], reason: str) -> None:
        super().__init__(f"{len(failed)} messages were not acknowledged by Kafka: {reason}")
        self.failed = failed


class TooLargeError(DeliveryError):
    """Kafka rejected all of `failed` because a message, or the batch that it was sent in, exceeds the topic's limit.

    For a caller that publishes on behalf of a single message, this error is permanent (docs/adr/0018)."""


# KafkaError.retriable() is set for transactions and little else, so the transient errors are listed here.
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


def is_transient_in_kafka(error: KafkaError) -> bool:
    """Whether a retry may succeed after this error."""
    return not is_fatal(error) and (error.retriable() or error.code() in _TRANSIENT_IN_KAFKA)


def is_fatal(error: KafkaError) -> bool:
    """Whether the client that reports the error is unusable from now on."""
    return error.fatal() or error.code() == KafkaError._FATAL


def _is_transient_exception(error: KafkaException) -> bool:
    cause = error.args[0] if error.args else None
    return isinstance(cause, KafkaError) and is_transient_in_kafka(cause)


set_transient_rule(KafkaException, _is_transient_exception)
