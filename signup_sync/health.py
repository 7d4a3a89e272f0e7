"""The web process's health pages, for compose, gateways and `make run`; the other roles' are eventbus.health's.

`/health/live`: 200 while the event loop turns. `/health/ready`: 200, or 503 with the parts that are away:
`{"status": "unavailable", "unavailable": ["redis"]}`.
"""

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor

from django.conf import settings
from django.db import connection
from django.http import HttpRequest, JsonResponse
from redis.asyncio import Redis

logger = logging.getLogger(__name__)

# Seconds that a part may take to answer; those who ask wait about as long.
PATIENCE = 2.0

# One thread, whatever the number of probes: a database that hangs blocks this one and no request's.
_database_thread = ThreadPoolExecutor(1, thread_name_prefix="health")


async def live(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"status": "ok"})


async def ready(request: HttpRequest) -> JsonResponse:
    """Whether this process can work: its database (it uses no other service's) and Redis."""
    database = asyncio.get_running_loop().run_in_executor(_database_thread, _ask_database)
    parts = {"database": database, "redis": _ask_redis()}
    answers = await asyncio.gather(
        *(asyncio.wait_for(part, PATIENCE) for part in parts.values()), return_exceptions=True
    )
    away = []
    for name, answer in zip(parts, answers, strict=True):
        if isinstance(answer, BaseException):
            logger.warning("not ready: %s is away: %r", name, answer)
            away.append(name)
    if away:
        return JsonResponse({"status": "unavailable", "unavailable": away}, status=503)
    return JsonResponse({"status": "ok"})


def _ask_database() -> None:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    finally:
        # Outside a request nobody else gives it back to the pool, or drops it when the server was restarted.
        connection.close_if_unusable_or_obsolete()


async def _ask_redis() -> None:
    async with Redis.from_url(settings.REDIS_URL) as redis:
        await redis.ping()
