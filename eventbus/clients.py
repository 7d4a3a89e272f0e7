"""Configuration that all Kafka clients share: the broker's address, the name prefix, and error logging."""

import logging
import time
from typing import Any, Final

from confluent_kafka import KafkaError
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

logger = logging.getLogger(__name__)

# Seconds before the same error is logged again.
REPEATED_AFTER: Final = 10.0


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
