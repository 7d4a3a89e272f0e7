"""Redis as every process speaks to it: who asks gives up soon and asks once. What it holds are copies, and nobody is to
wait where it is away. It stands here because every layer may import from here."""

from django.conf import settings
from redis import Redis
from redis import asyncio as aio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry


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
