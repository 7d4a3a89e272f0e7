"""`manage.py serve`: the web process, and auth's instances behind the gateway."""

import asyncio
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, Final

import uvicorn
import uvloop
from django.core.management.base import BaseCommand, CommandError, CommandParser

# Connections that may wait to be accepted: a crowd comes within one round of the event loop.
BACKLOG: Final = 1024
# Seconds that an idle connection stays open. Longer than the gateway keeps one (deploy/Caddyfile): a POST into a
# closing connection would be lost.
KEPT_ALIVE: Final = 60
# Seconds between two pings of a WebSocket, and that its client may take to answer one.
PING: Final = 20.0
# Bytes of a message that a browser may send; ours send none.
MESSAGE_MAX: Final = 64 * 1024
# Seconds that requests may take to end after a stop request; then they are cancelled.
ENDS_WITHIN: Final = 3
# Seconds that what these have begun may take after that: copies, events, connections.
CLOSES_WITHIN: Final = 1.0


class Command(BaseCommand):
    help = "Serves pages, admin, API and WebSockets until SIGTERM, which it obeys within 5 s (docs/adr/0016)."
    requires_system_checks = ()  # the application has those that it needs done

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--host", default="127.0.0.1", help="the address to listen on; default: %(default)s")
        parser.add_argument("--port", type=int, default=8000, help="default: %(default)s")
        parser.add_argument("--fd", type=int, help="a file descriptor that listens already, instead of an address")

    def handle(self, **options: Any) -> None:
        from signup_sync.asgi import api, application

        config = uvicorn.Config(
            application,
            http="httptools",
            ws="websockets-sansio",
            lifespan="off",
            backlog=BACKLOG,
            timeout_keep_alive=KEPT_ALIVE,
            timeout_graceful_shutdown=ENDS_WITHIN,
            ws_ping_interval=PING,
            ws_ping_timeout=PING,
            ws_max_size=MESSAGE_MAX,
            # A compressor for each socket would be the largest part of what a socket keeps.
            ws_per_message_deflate=False,
            # The application's own, by TRUSTED_PROXIES.
            proxy_headers=False,
            server_header=False,
            # The lines of requests would hold the tickets that stand in paths; the gateway has them, without.
            access_log=False,
            log_config=None,
            log_level="warning",
        )
        with listening(options["fd"], options["host"], options["port"]) as listener:
            # Not asyncio.run(), which in the end waits for tasks that it has cancelled: redis-py's can swallow that.
            uvloop.new_event_loop().run_until_complete(Server(config, api).serve([listener]))


class Server(uvicorn.Server):
    """uvicorn's waits for held streams when it is to stop, or cancels each with a traceback, and then ends by the
    signal. This one ends them, so that their clients go on elsewhere, and returns."""

    def __init__(self, config: uvicorn.Config, api: Any) -> None:
        super().__init__(config)
        self._api = api

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._api.start()
        await super().startup(sockets)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._api.end_streams()
        await super().shutdown(sockets)
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSES_WITHIN):
                await self._api.close()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.should_exit = True
        self.force_exit = self.force_exit or sig == signal.SIGINT


@contextmanager
def listening(fd: int | None, host: str, port: int) -> Iterator[socket.socket]:
    try:
        # Of a descriptor, uvicorn would believe that it is a Unix socket's.
        listener = socket.create_server((host, port), backlog=BACKLOG) if fd is None else socket.socket(fileno=fd)
    except OSError as error:
        raise CommandError(f"Can't listen on {host}:{port}: {error.strerror}") from error
    with listener:
        yield listener
