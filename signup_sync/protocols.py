"""uvicorn's protocols, with deadlines and limits for clients that are slow, silent or large (docs/adr/0049).

uvicorn limits only the pause between two requests. Here a request's head and body must arrive in time and in bounds,
an answer must be read, and a connection that is being closed must go.
"""

import asyncio
import json
import logging
import resource
from http import HTTPStatus
from typing import Any, Final, Literal, cast

from django.conf import settings
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from signup_sync.security_headers import security_headers

logger = logging.getLogger(__name__)

# Bytes that wait for the end of a turn of the event loop.
JOINED_MAX: Final = 64 * 1024
# Bytes and lines of a request's head; the gateway's limit is 14 KiB (deploy/Caddyfile).
HEAD_MAX: Final = 16 * 1024
HEADERS_MAX: Final = 100
# Bytes of a whole request, head and trailers included. Applications have smaller limits for the bodies they read.
REQUEST_MAX: Final = 4 * 1024 * 1024
# Seconds in which a client may take the last bytes of a connection that is being closed, and the answer that refuses
# its request: closing with unread input would reset the connection and lose that answer.
CLOSES_WITHIN: Final = 10.0
LINGERS_FOR: Final = 1.0
# A timer that fires so many seconds late means that this process was stopped or busy, not that the client was slow.
LATE: Final = 1.0
# File descriptors kept for databases, Redis, Kafka and files when clients hold all the others.
RESERVED_FILES: Final = 256

_WHY: Final = {
    HTTPStatus.BAD_REQUEST: "This is not valid HTTP.",
    HTTPStatus.REQUEST_TIMEOUT: "The request took too long to arrive. Send it again.",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "The request is too large.",
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE: "The request's headers are too large.",
}


def connections_max() -> int:
    """Connections that this process may hold. Raises its limit of open files as far as it may itself."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        soft = 65_536 if hard == resource.RLIM_INFINITY else hard
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return max(soft - RESERVED_FILES, RESERVED_FILES)


class HeadTooLargeError(Exception):
    """Ends the parsing of a request."""


class Http(HttpToolsProtocol):
    """Also joins small writes: uvicorn's sends an answer's head, each part of its body and its end as so many packets.

    A deadline runs while the server waits for the client: for the first byte (CONNECTION_IDLE_TIMEOUT, as between two
    requests), the rest of a head, or the rest of a body. It is one timer, and none for a request that arrives whole.
    """

    # Of every connection of this process.
    connections_max = 0
    # What the client has begun to send and not finished.
    _awaited: Literal["head", "body"] | None = None
    _deadline: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None
    _is_refused = False
    # How a request is refused that the parser gives up.
    _fault = HTTPStatus.BAD_REQUEST
    # Bytes since the present request began.
    _size = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.transport = cast(asyncio.Transport, Joined(transport, self.loop))
        if 0 < self.connections_max < len(self.connections):
            transport.abort()
            return
        # uvicorn's own timer, which it starts only after the first request.
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_timers()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._is_refused:
            return
        before = self._awaited
        if before is None:
            self._awaited = "head"
        self._size += len(data)
        super().data_received(data)
        if self._is_refused or self._awaited is None:
            return
        if self._awaited == "head" and self._size > HEAD_MAX:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        elif self._size > REQUEST_MAX:
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        elif self._awaited != before:
            self._expect()

    def handle_websocket_upgrade(self) -> None:
        self._awaited = None
        self._cancel_timers()
        super().handle_websocket_upgrade()

    # The parser's callbacks.

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._awaited = "head"

    def on_headers_complete(self) -> None:
        size = len(self.url) + sum([len(name) + len(value) + 4 for name, value in self.headers])
        if size > HEAD_MAX or len(self.headers) > HEADERS_MAX:
            self._fault = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            raise HeadTooLargeError
        self._awaited = "body"
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._awaited = None
        self._size = 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Called by uvicorn when the parser raises."""
        self._refuse(self._fault)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        # Of the next request something came while this one was answered.
        if self._awaited == "head":
            self._expect()

    # Deadlines.

    def _expect(self) -> None:
        """Gives the client time for the rest of what it has begun to send."""
        if self._deadline is not None:
            self._deadline.cancel()
        wait = settings.REQUEST_HEAD_TIMEOUT if self._awaited == "head" else settings.REQUEST_BODY_TIMEOUT
        self._deadline = self.loop.call_later(wait, self._look, self.loop.time() + wait, self._awaited)

    def _look(self, due: float, awaited: str | None) -> None:
        self._deadline = None
        if self._awaited != awaited or (awaited == "head" and self._is_answering):
            return
        if self.flow.read_paused or self.loop.time() - due > LATE:
            # The client may have sent the rest; this process has not read it.
            self._expect()
        else:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT)

    @property
    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _refuse(self, status: HTTPStatus) -> None:
        """Answers, where no other answer has begun, and closes."""
        self._is_refused = True
        self._cancel_timers()
        self._unset_keepalive_if_required()
        if self.pipeline or (self._is_answering and (self._awaited != "body" or self.cycle.response_started)):
            self.transport.abort()
            return
        if self._is_answering:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        elif status == HTTPStatus.REQUEST_TIMEOUT and self._awaited == "body":
            # Answered already, without a look at the body.
            self.transport.close()
            return
        self.transport.write(self._answer(status))
        self.transport.write_eof()
        self.loop.call_later(LINGERS_FOR, self.transport.abort)

    def _answer(self, status: HTTPStatus) -> bytes:
        detail = _WHY[status]
        kind, body = "text/plain; charset=utf-8", detail
        if getattr(self, "url", b"").startswith(b"/user"):
            document = {"type": "about:blank", "title": status.phrase, "status": status.value, "detail": detail}
            kind, body = "application/problem+json", json.dumps(document)
        # Whether the client spoke HTTPS is not known here. Over HTTP browsers ignore HSTS (RFC 6797, 8.1), and without
        # HSTS_SECONDS there is none.
        more = b"".join(b"%b: %b\r\n" % header for header in security_headers(is_secure=True))
        head = f"content-type: {kind}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n"
        return STATUS_LINE[status] + head.encode("ascii") + more + b"\r\n" + body.encode("ascii")

    # A client that reads slowly, or not at all.

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stalled = self.loop.call_later(settings.RESPONSE_STALL_TIMEOUT, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stalled is not None:
            self._stalled.cancel()

    def _cancel_timers(self) -> None:
        for timer in (self._deadline, self._stalled):
            if timer is not None:
                timer.cancel()


class Joined:
    """A transport that sends what one turn of the event loop writes in one piece: each is work for the kernel, and for
    the gateway, which wakes up for it (docs/adr/0016). Once closed, it does not wait forever for its client to read."""

    __slots__ = ("_loop", "_pieces", "_size", "_transport")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._pieces: list[bytes] = []
        self._size = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if not self._pieces:
            self._loop.call_soon(self._flush)
        self._pieces.append(data)
        self._size += len(data)
        # Or whoever writes without a pause would never learn that the client is slower.
        if self._size >= JOINED_MAX:
            self._flush()

    def write_eof(self) -> None:
        self._flush()
        if not self._transport.is_closing():
            self._transport.write_eof()

    def close(self) -> None:
        self._flush()
        self._transport.close()
        if self._transport.get_write_buffer_size():
            self._loop.call_later(CLOSES_WITHIN, self._transport.abort)

    def _flush(self) -> None:
        pieces, self._pieces, self._size = self._pieces, [], 0
        if pieces and not self._transport.is_closing():
            self._transport.write(b"".join(pieces))


class Socket(WebSocketsSansIOProtocol):
    """uvicorn's keeps the parsed handshake for as long as the socket is open, 2 KiB."""

    def start_keepalive(self) -> None:
        super().start_keepalive()
        del self.request, self.response

    async def send(self, message: Any) -> None:
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and not message.get("more_body", False):
            # uvicorn logs an error for a handshake that was answered with a status, as if nothing had been answered.
            self.handshake_complete = True

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self.handshake_initiated and not self.transport.is_closing():
            # Http passes on a whole handshake. The library refuses this one, and uvicorn would hold the connection.
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.transport.close()
