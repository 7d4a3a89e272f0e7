"""Health checks of a long-running command over HTTP.

Live: the last heartbeat is at most BEAT_WITHIN seconds old. Waiting for a dependency still beats; a blocked call does
not. A restart helps then, and unfinished work is read again. If it stays blocked for another minute, the role ends
itself.
Ready: the role is live and does its work.
"""

import json
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

logger = logging.getLogger(__name__)

# Seconds without a heartbeat after which a role counts as stuck.
BEAT_WITHIN: Final = 30.0


class Heartbeat:
    """The time at which a role last completed a loop iteration, and whether it is ready.

    A role with several loops has a part for each. It is live while all parts are live, and ready when all are ready.
    """

    def __init__(self) -> None:
        self._last = time.monotonic()
        self._ready = False
        self._parts: tuple[Heartbeat, ...] = ()

    def beat(self) -> None:
        self._last = time.monotonic()

    def ready(self) -> None:
        self.beat()
        self._ready = True

    def parts(self, count: int) -> "tuple[Heartbeat, ...]":
        """Create `count` parts that beat in place of this heartbeat from now on."""
        self._parts = tuple(Heartbeat() for _ in range(count))
        return self._parts

    @property
    def age(self) -> float:
        """Seconds since the last beat, of the slowest part."""
        return max((part.age for part in self._parts), default=time.monotonic() - self._last)

    @property
    def is_live(self) -> bool:
        return self.age <= BEAT_WITHIN

    @property
    def is_ready(self) -> bool:
        return self.is_live and (all(part.is_ready for part in self._parts) if self._parts else self._ready)


@contextmanager
def health_server(heartbeat: Heartbeat, *, host: str, port: int) -> Iterator[int]:
    """Serve GET /health/live, /health/ready and /metrics (for Prometheus) on a thread.

    Health is 200 `{"status": "ok"}`, or 503 with a description as the status. Yields the port, which is a free one if
    `port` is 0. Raises OSError if the port can't be bound.
    """

    server = _HealthServer((host, port), _HealthHandler)
    server.heartbeat = heartbeat
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, name="health", daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


class _HealthServer(ThreadingHTTPServer):
    daemon_threads = True
    heartbeat: Heartbeat

    def handle_error(self, request: object, client_address: object) -> None:
        logger.debug("a client of the health server disconnected early", exc_info=True)


class _HealthHandler(BaseHTTPRequestHandler):
    server: _HealthServer
    # Seconds before a silent client is disconnected, so that it does not occupy its thread for longer.
    timeout = 5
    # Keep the software's name and version out of the Server header.
    server_version = "health"
    sys_version = ""

    def do_GET(self) -> None:
        if self.path == "/metrics":
            self._send(200, CONTENT_TYPE_LATEST, generate_latest())
            return
        heartbeat = self.server.heartbeat
        pages = {"/health/live": heartbeat.is_live, "/health/ready": heartbeat.is_ready}
        if (is_good := pages.get(self.path.rstrip("/"))) is None:
            self._answer(404, "not found: use /health/live, /health/ready or /metrics")
        elif is_good:
            self._answer(200, "ok")
        elif heartbeat.is_live:
            self._answer(503, "not working yet")
        else:
            self._answer(503, f"stuck for {heartbeat.age:.0f} s")

    def _answer(self, code: int, status: str) -> None:
        self._send(code, "application/json", json.dumps({"status": status}).encode())

    def _send(self, code: int, content_type: str, body: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def end_headers(self) -> None:
        """Add the headers that the web process sends (signup_sync.server.transport) to every response."""
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:
        logger.debug(format, *args)
