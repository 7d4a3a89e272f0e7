"""How every client of Kafka is set up: where Kafka is, what names carry, how it complains."""

import logging
import time
from typing import Any, Final

from confluent_kafka import KafkaError
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

logger = logging.getLogger(__name__)

# Seconds until the same complaint is written again.
REPEATED_AFTER: Final = 10.0


def client_config(own: dict[str, Any]) -> dict[str, Any]:
    """librdkafka's settings of a client: what all have, its `own`, and the installation's KAFKA_CLIENT_CONFIG last.

    Raises ImproperlyConfigured where nothing says where Kafka is.
    """
    if not settings.KAFKA_BOOTSTRAP_SERVERS:
        raise ImproperlyConfigured(
            f"There is no Kafka here: `make run`, whose broker would be the one, is not running on {settings.DATA_DIR}."
            " Start it, name its DATA_DIR, or say with KAFKA_BOOTSTRAP_SERVERS where Kafka is."
        )
    return {
        "bootstrap.servers": settings.KAFKA_BOOTSTRAP_SERVERS,
        # Otherwise a client may take 10 s to see that Kafka is back.
        "reconnect.backoff.max.ms": 2000,
        # librdkafka's own lines are 20 a second while a broker is away; Complaints says the same in one.
        "log_level": 2,
        "error_cb": Complaints(),
        **own,
        **settings.KAFKA_CLIENT_CONFIG,
    }


def reader_config(own: dict[str, Any]) -> dict[str, Any]:
    """client_config() of a client that reads. The embedded broker wakes no fetch that waits, so it is asked often."""
    return client_config({"fetch.wait.max.ms": 5, **own} if settings.KAFKA_EMBEDDED else own)


def prefixed(name: str) -> str:
    """A topic's or group's name as Kafka has it."""
    return f"{settings.KAFKA_PREFIX}{name}"


def unprefixed(name: str) -> str:
    """A topic's or group's name as the services know it."""
    return name.removeprefix(settings.KAFKA_PREFIX)


class Complaints:
    """Logs what librdkafka reports of itself, the same at most every REPEATED_AFTER seconds."""

    def __init__(self) -> None:
        self._said_at: dict[int, float] = {}

    def __call__(self, error: KafkaError) -> None:
        now = time.monotonic()
        if now - self._said_at.get(error.code(), -REPEATED_AFTER) >= REPEATED_AFTER:
            self._said_at[error.code()] = now
            logger.warning("Kafka at %s: %s", settings.KAFKA_BOOTSTRAP_SERVERS, error.str())
