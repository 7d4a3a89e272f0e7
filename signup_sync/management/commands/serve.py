"""`manage.py serve`: the web process, and auth's instances behind the gateway (docs/adr/0016)."""

import asyncio
import logging
import signal
import socket
import sys
import threading
from contextlib import suppress
from types import FrameType
from typing import Any, Final, Protocol

import uvicorn
import uvloop
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from runtime.processes.roles import ENDS_WITHIN, collect_rarely, end_at_once
from signup_sync.server.protocols import Http, Socket, connections_max

logger = logging.getLogger(__name__)

# Connections that may wait to be accepted: a crowd comes within one round of the event loop.
BACKLOG: Final = 1024
# Seconds between two pings of a WebSocket, and that its client may take to answer one.
PING: Final = 20.0
# Seconds that a thread may keep the interpreter from one that waits, which Python's own 5 ms are long for: whoever
# has hashed or written a batch waits for the event loop (docs/adr/0035).
GIL_FOR: Final = 0.0005
# Bytes of a message that a browser may send; ours send none.
MESSAGE_MAX: Final = 64 * 1024
# Seconds that requests may take to end after a stop request; then they are cancelled.
REQUESTS_END_WITHIN: Final = 3
# Seconds that what these have begun may take after that: copies, events, connections.
CLOSES_WITHIN: Final = 1.0


class Command(BaseCommand):
    help = (
        "Serves pages, admin, API and WebSockets until SIGTERM or Ctrl-C. Within 5 s of it this has ended: streams end"
        " in order, so that their clients go on at another process, and requests may take 3 s."
    )
    requires_system_checks = ()  # the application has those that it needs done

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--host", default="127.0.0.1", help="the address to listen on; default: %(default)s")
        parser.add_argument("--port", default="8000", help="0 takes any free one; default: %(default)s")
        parser.add_argument("--fd", type=int, help="a socket's file descriptor, instead of an address")

    def handle(self, *, host: str, port: str | int, fd: int | None, **options: Any) -> None:
        with listen(host, str(port)) if fd is None else inherited(fd) as listener:
            sys.setswitchinterval(GIL_FOR)
            # After the address is known to be ours: it takes half a second, and starts threads.
            from signup_sync.asgi import api, application

            Http.connections_max = connections_max()
            collect_rarely()
            server = Server(config(application), api)
            # Not asyncio.run(), which in the end waits for tasks that it has cancelled: redis-py's can swallow that.
            uvloop.new_event_loop().run_until_complete(server.serve([listener]))


def listen(host: str, port: str) -> socket.socket:
    """A socket that listens on this address. Raises CommandError."""
    if not (port.isascii() and port.isdigit() and int(port) < 65536):
        raise CommandError(f"{port} is no port: give --port a number from 1 to 65535.")
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, int(port)))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        reason = error.strerror
        raise CommandError(f"Can't listen on {host}, port {port}: {reason}. Name another --host or --port.") from error
    return listener


def inherited(fd: int) -> socket.socket:
    """The socket that whoever started this has opened; uvicorn would take it for a Unix socket. Raises CommandError."""
    try:
        return socket.socket(fileno=fd)
    except OSError as error:
        raise CommandError(f"Can't listen on file descriptor {fd}: {error.strerror}.") from error


class Api(Protocol):
    """What the server tells the API of auth (authsvc.api.application)."""

    def start(self) -> None: ...
    def release(self) -> None: ...
    async def close(self) -> None: ...


class Server(uvicorn.Server):
    """uvicorn's waits for held streams when it is to stop, or cancels each with a traceback, and then ends by the
    signal. This one has them end, so that their clients go on elsewhere, and returns."""

    def __init__(self, config: uvicorn.Config, api: Api) -> None:
        super().__init__(config)
        self._api = api

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._api.start()
        await super().startup(sockets)
        logger.info("serving at %s", ", ".join("{}:{}".format(*each.getsockname()) for each in sockets or ()))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # A thread that hangs in a database would keep the process, whose end waits for its threads.
        last_resort = threading.Timer(ENDS_WITHIN, end_at_once, ["serve"])
        last_resort.daemon = True
        last_resort.start()
        self._api.release()
        await super().shutdown(sockets)
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSES_WITHIN):
                await self._api.close()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.should_exit = True
        self.force_exit = self.force_exit or sig == signal.SIGINT


def config(application: Any) -> uvicorn.Config:
    return uvicorn.Config(
        application,
        http=Http,
        ws=Socket,
        lifespan="off",
        backlog=BACKLOG,
        timeout_keep_alive=settings.CONNECTION_IDLE_TIMEOUT,
        timeout_graceful_shutdown=REQUESTS_END_WITHIN,
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
