"""The web process's health pages, for compose, gateways and `make run`, and its metrics; the other roles' are
runtime.processes.health's.

`/health/live`: 200 while the event loop turns. `/health/ready`: 200 while this process can do its own work, which it
also can without Redis, `{"status": "ok", "unavailable": ["redis"]}`; otherwise 503, `{"status": "unavailable",
"unavailable": ["database"]}`. Both, and `/metrics`, are for whoever asks this very process: a request that came through
a proxy finds nothing (docs/adr/0019).

A plain ASGI application beside Django: a probe names no host that ALLOWED_HOSTS need know, and costs no thread.
"""

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import Final

from asgiref.typing import ASGIReceiveCallable, ASGISendCallable, HTTPScope
from django.db import connection
from prometheus_client import make_asgi_app
from redis.asyncio import Redis

from authsvc.api.http_messages import send_json
from runtime.redis_clients import redis_pool

logger = logging.getLogger(__name__)

# Seconds that a part may take to answer; those who ask wait about as long.
PATIENCE = 2.0

# One thread, whatever the number of probes: a database that hangs blocks this one alone.
_database_thread = ThreadPoolExecutor(1, thread_name_prefix="health")
_metrics_page = make_asgi_app()

# Each is written by a proxy, and the proxy's client can't remove it. Not X-Forwarded-Proto: probes that are to pass a
# redirect to HTTPS send it themselves.
_OF_PROXIES: Final = frozenset({b"x-forwarded-for", b"x-real-ip", b"forwarded", b"via"})


async def application(scope: HTTPScope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    if is_proxied(scope):
        await send_json(send, HTTPStatus.NOT_FOUND, {"status": "there is nothing here"})
    elif scope["path"] == "/metrics":
        await _metrics_page(scope, receive, send)
    elif scope["path"] == "/health/live":
        await send_json(send, HTTPStatus.OK, {"status": "ok"})
    elif scope["path"] != "/health/ready":
        await send_json(send, HTTPStatus.NOT_FOUND, {"status": "there are /health/live and /health/ready"})
    else:
        away = await parts_away()
        # Without Redis every instance still does its work: a probe that removed them all would make an outage of it.
        is_ready = "database" not in away
        status = HTTPStatus.OK if is_ready else HTTPStatus.SERVICE_UNAVAILABLE
        document = {"status": "ok" if is_ready else "unavailable"}
        await send_json(send, status, document | ({"unavailable": away} if away else {}))


def is_proxied(scope: HTTPScope) -> bool:
    return any(name in _OF_PROXIES for name, _ in scope["headers"])


async def parts_away() -> list[str]:
    """Which parts do not answer: this process's database (it uses no other service's), and Redis."""
    database = asyncio.get_running_loop().run_in_executor(_database_thread, _ask_database)
    parts = {"database": database, "redis": _ask_redis()}
    waits = (asyncio.wait_for(part, PATIENCE) for part in parts.values())
    away = []
    for name, answer in zip(parts, await asyncio.gather(*waits, return_exceptions=True), strict=True):
        if isinstance(answer, BaseException):
            logger.warning("%s is away: %r", name, answer)
            away.append(name)
    return away


def _ask_database() -> None:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    finally:
        # Outside a request nobody else gives it back to the pool, or drops it when the server was restarted.
        connection.close_if_unusable_or_obsolete()


async def _ask_redis() -> None:
    async with Redis.from_pool(redis_pool(PATIENCE, connections=1)) as redis:
        await redis.ping()
