"""The web process's metrics and its health endpoints for compose, gateways and `make run`. runtime.processes.health
serves those of the other roles.

`/health/live`: 200 while the event loop runs. `/health/ready`: 200 while this process can do its own work, which
includes the time without Redis (`{"status": "ok", "unavailable": ["redis"]}`); otherwise 503 (`{"status":
"unavailable", "unavailable": ["database"]}`). These and `/metrics` are only for clients that connect to this process
directly: a request through a proxy gets 404 (docs/adr/0019).

This is a plain ASGI application beside Django, so that a probe needs no host in ALLOWED_HOSTS and costs no thread.
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

# Timeout in seconds for each dependency; probes usually wait about as long.
ANSWERS_WITHIN = 2.0

# A single thread for all probes: a database that hangs blocks only this one.
_database_thread = ThreadPoolExecutor(1, thread_name_prefix="health")
_metrics_page = make_asgi_app()

# Headers that proxies add and their clients can't remove. X-Forwarded-Proto is not among them, because probes send it
# themselves to avoid a redirect to HTTPS.
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
        # Without Redis, every instance still works; if it failed the probe, all of them would leave the rotation.
        is_ready = "database" not in away
        status = HTTPStatus.OK if is_ready else HTTPStatus.SERVICE_UNAVAILABLE
        document = {"status": "ok" if is_ready else "unavailable"}
        await send_json(send, status, document | ({"unavailable": away} if away else {}))


def is_proxied(scope: HTTPScope) -> bool:
    return any(name in _OF_PROXIES for name, _ in scope["headers"])


async def parts_away() -> list[str]:
    """Return the dependencies that don't respond, of this process's database (it uses no other) and Redis."""
    database = asyncio.get_running_loop().run_in_executor(_database_thread, _ask_database)
    parts = {"database": database, "redis": _ask_redis()}
    waits = (asyncio.wait_for(part, ANSWERS_WITHIN) for part in parts.values())
    away = []
    for name, answer in zip(parts, await asyncio.gather(*waits, return_exceptions=True), strict=True):
        if isinstance(answer, BaseException):
            logger.warning("%s is unreachable: %r", name, answer)
            away.append(name)
    return away


def _ask_database() -> None:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    finally:
        # Outside a request, nothing else returns the connection to the pool or drops it after a server restart.
        connection.close_if_unusable_or_obsolete()


async def _ask_redis() -> None:
    async with Redis.from_pool(redis_pool(ANSWERS_WITHIN, connections=1)) as redis:
        await redis.ping()
