"""Configuration that all Kafka clients share: the broker's address, the name prefix, and error logging."""

import logging
import threading
import time
from contextvars import copy_context
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

logger = logging.getLogger(__name__)

# Seconds before the same error is logged again.
REPEATED_AFTER: Final = 10.0
# Seconds within which a connected client gets an answer, a new one connects, and a disconnected one connects again: its
# pauses take 2 s at most.
ANSWERS_WITHIN: Final = 0.5
CONNECTS_WITHIN: Final = 1.0
RECONNECTS_WITHIN: Final = 2.2
# Number of questions during RECONNECTS_WITHIN. A stop request may wait for one.
ASKED_AGAIN: Final = 11
# Seconds that closing a consumer may take.
CLOSES_WITHIN: Final = 1.0


def client_config(own: dict[str, Any]) -> dict[str, Any]:
    """Return a client's librdkafka settings: the shared ones, then `own`, then KAFKA_CLIENT_CONFIG. Later ones win.

    Raises ImproperlyConfigured if no Kafka is configured.
    """
    if not settings.KAFKA_BOOTSTRAP_SERVERS:
        raise ImproperlyConfigured(
            f"There is no Kafka here: `make run`, which would provide the broker, is not running on "
            f"{settings.DATA_DIR}. Start it, set DATA_DIR to the one that it uses, or set KAFKA_BOOTSTRAP_SERVERS."
        )
    return {
        "bootstrap.servers": settings.KAFKA_BOOTSTRAP_SERVERS,
        # By default a client may take 10 s to reconnect once Kafka is back.
        "reconnect.backoff.max.ms": 2000,
        # librdkafka logs 20 lines a second while a broker is unreachable; Complaints logs one every 10 s.
        "log_level": 2,
        "error_cb": Complaints(),
        **own,
        **settings.KAFKA_CLIENT_CONFIG,
    }


def reader_config(own: dict[str, Any]) -> dict[str, Any]:
    """Return client_config() for a consumer. The embedded broker does not wake a waiting fetch, so poll it often."""
    return client_config({"fetch.wait.max.ms": 5, **own} if settings.KAFKA_EMBEDDED else own)


def is_stranded(client: Consumer | Producer, stop: threading.Event) -> bool:
    """Return whether a client has lost Kafka for good: it knows no broker any more, while a new client reaches Kafka.
    False after `stop` was set, without knowing.

    librdkafka forgets the brokers that Kafka's metadata leaves out. While Kafka's only broker is fenced, the metadata
    names none, and a client that asks then never connects again (docs/adr/0081). Takes up to 3.5 s, and 1.5 s while
    Kafka is down.
    """
    if _knows_a_broker(client, ANSWERS_WITHIN):
        return False
    try:
        # The first client has already complained.
        AdminClient(client_config({"error_cb": lambda _: None})).list_topics(timeout=CONNECTS_WITHIN)
    except KafkaException:
        return False
    return not any(
        stop.is_set() or _knows_a_broker(client, RECONNECTS_WITHIN / ASKED_AGAIN) for _ in range(ASKED_AGAIN)
    )


def _knows_a_broker(client: Consumer | Producer, within: float) -> bool:
    """Whether the client knows a broker: without one, the error code is not that of a broker that does not answer."""
    try:
        client.list_topics(timeout=within)
    except KafkaException as error:
        return bool(error.args[0].code() != KafkaError._TRANSPORT)
    return True


def close_consumer(consumer: Consumer, *, within: float = CLOSES_WITHIN) -> None:
    """Close a consumer, which leaves its group. Raises the errors of its callbacks.

    After `within` seconds, it is left to a thread that ends with the process: a stranded consumer may never return."""
    errors: list[Exception] = []

    def close() -> None:
        try:
            consumer.close()
        except Exception as error:
            errors.append(error)

    # The context has the fields of the log.
    closing = threading.Thread(target=copy_context().run, args=[close], name="close-consumer", daemon=True)
    closing.start()
    closing.join(within)
    if errors:
        raise errors[0]


def prefixed(name: str) -> str:
    """Return a topic's or group's name with KAFKA_PREFIX, as Kafka has it."""
    return f"{settings.KAFKA_PREFIX}{name}"


def unprefixed(name: str) -> str:
    """Return a topic's or group's name without KAFKA_PREFIX, as the services use it."""
    return name.removeprefix(settings.KAFKA_PREFIX)


class Complaints:
    """Error callback that logs librdkafka's client errors, each error code at most every REPEATED_AFTER seconds."""

    def __init__(self) -> None:
        self._said_at: dict[int, float] = {}

    def __call__(self, error: KafkaError) -> None:
        now = time.monotonic()
        if now - self._said_at.get(error.code(), -REPEATED_AFTER) >= REPEATED_AFTER:
            self._said_at[error.code()] = now
            logger.warning("Kafka at %s: %s", settings.KAFKA_BOOTSTRAP_SERVERS, error.str())
