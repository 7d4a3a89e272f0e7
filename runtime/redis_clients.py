"""Redis clients with short timeouts and no retries.

Redis holds nothing that the product can't lose, so nothing may wait long for it while it is unavailable."""

import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from django.conf import settings
from redis import Redis
from redis import asyncio as aio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from runtime.errors import in_one_line

logger = logging.getLogger(__name__)

# Timeout of Redis in seconds where a person waits for the result.
ANSWERS_WITHIN: Final = 0.5
# Seconds after a failure during which Redis is not asked again.
AWAY_PAUSE: Final = 1.0
# Seconds after the last failure during which other processes may not have noticed yet that Redis is back. Until they
# do, they publish no messages through it.
SETTLES_WITHIN: Final = 3.0
# Errors that a client raises while Redis is unavailable.
REDIS_ERRORS: Final = (RedisError, OSError)


def redis_client(within: float, *, decode_responses: bool = False) -> Redis:
    """Return a client for threads. `within` is the timeout in seconds of a command, and of connecting."""
    return Redis.from_url(
        settings.REDIS_URL,
        retry=Retry(NoBackoff(), 0),
        socket_timeout=within,
        socket_connect_timeout=within,
        decode_responses=decode_responses,
    )


def redis_pool(within: float, *, connections: int) -> aio.BlockingConnectionPool:
    """Return a connection pool for an event loop, with the same timeouts.

    A caller waits up to `within` seconds for a free connection; the default pool would refuse it at once."""
    return aio.BlockingConnectionPool.from_url(
        settings.REDIS_URL,
        max_connections=connections,
        timeout=within,
        retry=AsyncRetry(NoBackoff(), 0),
        socket_timeout=within,
        socket_connect_timeout=within,
    )


def redis_listener(within: float) -> aio.Redis:
    """Return a client for a subscriber in an event loop: connecting times out after `within` seconds, reading never."""
    return aio.Redis.from_url(
        settings.REDIS_URL, retry=AsyncRetry(NoBackoff(), 0), socket_timeout=None, socket_connect_timeout=within
    )


class CircuitBreaker:
    """Open for AWAY_PAUSE seconds after Redis failed to answer, so that only one caller per second waits for it.

    A frozen Redis costs each caller the full timeout, and delays everything queued behind that caller. Threads may
    share a breaker: a race causes at most one extra request, which is harmless.
    """

    def __init__(self, consequence: str) -> None:
        """`consequence` completes "Redis is unavailable: " in the log."""
        self._consequence = consequence
        self._failed_at = -math.inf
        self._is_away = False

    @property
    def is_open(self) -> bool:
        """Whether Redis failed within the last AWAY_PAUSE seconds and should not be asked now."""
        return time.monotonic() < self._failed_at + AWAY_PAUSE

    @property
    def has_failed_lately(self) -> bool:
        """Whether messages through Redis may still be missing, because other processes have not noticed its return."""
        return time.monotonic() < self._failed_at + SETTLES_WITHIN

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Note whether Redis answers in the block. An error of Redis ends the block and is not raised."""
        try:
            yield
        except REDIS_ERRORS as error:
            self.note_failure(error)
        else:
            self.note_success()

    def note_failure(self, error: Exception) -> None:
        """Open the breaker. An outage is logged once."""
        self._failed_at = time.monotonic()
        if not self._is_away:
            logger.warning("Redis is unavailable: %s: %s", self._consequence, in_one_line(error))
        self._is_away = True

    def note_success(self) -> None:
        """Record that Redis answers; log the end of an outage."""
        if self._is_away:
            logger.info("Redis is back")
        self._is_away = False
