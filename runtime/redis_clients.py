"""Redis as every process speaks to it: who asks gives up soon and asks once. What it holds are copies, and nobody is to
wait where it is away. It stands here because every layer may import from here."""

import logging
import math
import time
from typing import Final

from django.conf import settings
from redis import Redis
from redis import asyncio as aio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

logger = logging.getLogger(__name__)

# Seconds that Redis may take to answer what people wait for.
ANSWERS_WITHIN: Final = 0.5
# Seconds for which Redis is not asked again after it did not answer.
AWAY_PAUSE: Final = 1.0
# Seconds after the last failure for which other processes may not have noticed that Redis is back: until they do, they
# send no messages through it.
SETTLES_WITHIN: Final = 3.0
# What a client raises while Redis is away.
REDIS_ERRORS: Final = (RedisError, OSError)


def redis_client(within: float, *, decode_responses: bool = False) -> Redis:
    """For threads. Redis may take `within` seconds to answer, and as many to be reached."""
    return Redis.from_url(
        settings.REDIS_URL,
        retry=Retry(NoBackoff(), 0),
        socket_timeout=within,
        socket_connect_timeout=within,
        decode_responses=decode_responses,
    )


def redis_pool(within: float, *, connections: int) -> aio.BlockingConnectionPool:
    """The same for an event loop. Who finds no free connection waits for one, as long again: the default pool of 100
    refuses the 101st."""
    return aio.BlockingConnectionPool.from_url(
        settings.REDIS_URL,
        max_connections=connections,
        timeout=within,
        retry=AsyncRetry(NoBackoff(), 0),
        socket_timeout=within,
        socket_connect_timeout=within,
    )


def redis_listener(within: float) -> aio.Redis:
    """For a subscriber in an event loop: reached within so many seconds, and then listened to without a limit."""
    return aio.Redis.from_url(
        settings.REDIS_URL, retry=AsyncRetry(NoBackoff(), 0), socket_timeout=None, socket_connect_timeout=within
    )


class CircuitBreaker:
    """Remembers for AWAY_PAUSE seconds that Redis did not answer, so that only one caller a second waits for it.

    A frozen Redis costs each caller the whole timeout, and everything that queues behind a caller as well. Threads may
    share a breaker: two that race ask Redis once too often, which is harmless.
    """

    def __init__(self, consequence: str) -> None:
        """`consequence` completes "Redis is away: " in the log."""
        self._consequence = consequence
        self._failed_at = -math.inf
        self._is_away = False

    @property
    def is_open(self) -> bool:
        """Whether Redis failed a moment ago and should not be asked now."""
        return time.monotonic() < self._failed_at + AWAY_PAUSE

    @property
    def has_failed_lately(self) -> bool:
        """Whether messages through Redis may still be missing."""
        return time.monotonic() < self._failed_at + SETTLES_WITHIN

    def note_failure(self, error: Exception) -> None:
        """Opens the breaker. The log has one line for the whole outage."""
        self._failed_at = time.monotonic()
        if not self._is_away:
            logger.warning("Redis is away: %s: %s", self._consequence, " ".join(str(error).split()))
        self._is_away = True

    def note_success(self) -> None:
        """Ends the outage."""
        if self._is_away:
            logger.info("Redis is back")
        self._is_away = False
