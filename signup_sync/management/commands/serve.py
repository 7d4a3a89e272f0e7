"""`manage.py serve`: run a web process, or an auth instance behind the gateway (docs/adr/0016)."""

import asyncio
import logging
import signal
import socket
import sys
import threading
from contextlib import suppress
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

import uvicorn
import uvloop
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from authsvc.operations import traffic_page
from runtime.processes.roles import ENDS_WITHIN, collect_rarely, end_at_once
from signup_sync.server.connections import connections_max
from signup_sync.server.http_protocol import Http
from signup_sync.server.websocket_protocol import Socket

if TYPE_CHECKING:
    from authsvc.api.application import SignUpApi
    from signup_sync.server.web_instance import WebInstance

logger = logging.getLogger(__name__)

# Connections that may wait to be accepted: many can arrive within one event-loop iteration.
BACKLOG: Final = 1024
# Seconds between two pings of a WebSocket, and within which its client must answer one.
PING: Final = 20.0
# The interpreter's switch interval in seconds. Python's default of 5 ms is long for threads that wait for the event
# loop after hashing a password or writing a batch (docs/adr/0035).
GIL_FOR: Final = 0.0005
# Maximum bytes of a WebSocket message from a browser; our pages send none.
WEBSOCKET_MESSAGE_MAX: Final = 64 * 1024
# Seconds for requests to finish after a stop request; then they are cancelled.
REQUESTS_END_WITHIN: Final = 3
# Further seconds for the work that requests have started: copies, events, connections.
CLOSES_WITHIN: Final = 1.0


class Command(BaseCommand):
    help = (
        "Serve pages, admin, API and WebSockets until SIGTERM or Ctrl-C. It then stops within 5 s: streams are ended"
        " cleanly, so that clients reconnect to another process, and requests have 3 s to finish."
    )
    requires_system_checks = ()  # signup_sync.asgi runs the ones that it needs

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--host", default="127.0.0.1", help="the address to listen on; default: %(default)s")
        parser.add_argument("--port", default="8000", help="the port, or 0 for any free one; default: %(default)s")
        parser.add_argument("--fd", type=int, help="file descriptor of an open socket, instead of an address")

    def handle(self, *, host: str, port: str | int, fd: int | None, **options: Any) -> None:
        with listen(host, str(port)) if fd is None else inherited(fd) as listener:
            sys.setswitchinterval(GIL_FOR)
            # Import it only after binding the address: it takes half a second, and starts threads.
            from signup_sync.asgi import api, application

            Http.connections_max = connections_max()
            collect_rarely()
            server = Server(config(application), api, application)
            # asyncio.run() would finally wait for the tasks that it cancels, and redis-py can swallow a cancellation.
            uvloop.new_event_loop().run_until_complete(server.serve([listener]))


def listen(host: str, port: str) -> socket.socket:
    """Open a socket that listens on this address. Raises CommandError."""
    if not (port.isascii() and port.isdigit() and int(port) < 65536):
        raise CommandError(f"{port} is not a port: give --port a number from 1 to 65535.")
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, int(port)))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        reason = error.strerror
        raise CommandError(f"Can't listen on {host}, port {port}: {reason}. Use another --host or --port.") from error
    return listener


def inherited(fd: int) -> socket.socket:
    """Return the socket that the parent process has opened; uvicorn's own --fd assumes a Unix socket. Raises
    CommandError."""
    try:
        return socket.socket(fileno=fd)
    except OSError as error:
        raise CommandError(f"Can't listen on file descriptor {fd}: {error.strerror}.") from error


class Server(uvicorn.Server):
    """A server that drains: it ends held streams, so that clients reconnect elsewhere, and then returns. uvicorn's own
    waits for held streams, or cancels each with a traceback, and then ends by raising the signal again."""

    def __init__(self, config: uvicorn.Config, api: "SignUpApi", instance: "WebInstance") -> None:
        super().__init__(config)
        self._api = api
        self._instance = instance

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._api.start()
        await super().startup(sockets)
        logger.info("serving at %s", ", ".join("{}:{}".format(*each.getsockname()) for each in sockets or ()))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # A thread that hangs in a database call would keep the process alive, because its exit waits for threads.
        last_resort = threading.Timer(ENDS_WITHIN, end_at_once, ["serve"])
        last_resort.daemon = True
        last_resort.start()
        self._api.drain()
        traffic_page.stopping.set()
        await super().shutdown(sockets)
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSES_WITHIN):
                await self._api.close()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._instance.show_draining()
        # As in uvicorn, a second Ctrl-C ends it without waiting for requests.
        self.force_exit = self.force_exit or (self.should_exit and sig == signal.SIGINT)
        self.should_exit = True


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
        ws_max_size=WEBSOCKET_MESSAGE_MAX,
        # A compressor per socket would use most of a socket's memory.
        ws_per_message_deflate=False,
        # The application handles these headers, according to TRUSTED_PROXIES.
        proxy_headers=False,
        server_header=False,
        # Request lines would contain the tickets in paths; the gateway logs requests with tickets redacted.
        access_log=False,
        log_config=None,
        log_level="warning",
    )
