"""uvicorn's HTTP protocol with deadlines and limits for slow, silent and oversized clients (docs/adr/0049).

uvicorn limits only the pause between two requests. This protocol also limits the time and size of a request's head and
body, and the time for which a client may not read its response.
"""

import asyncio
import json
import re
from http import HTTPStatus
from typing import Any, Final, Literal, cast

import httptools
from django.conf import settings
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from signup_sync.server.connections import ClosingTransport
from signup_sync.server.security_headers import security_headers

# Maximum size (bytes) and number of headers of a request; the gateway's limit is 14 KiB (deploy/Caddyfile).
HEAD_MAX: Final = 16 * 1024
HEADERS_MAX: Final = 100
# Maximum bytes of a whole request, including head and trailers. Applications have smaller limits for their bodies.
REQUEST_MAX: Final = 4 * 1024 * 1024
# Seconds before a refused connection is aborted: closing it with unread input would reset it and lose the response.
LINGERS_FOR: Final = 1.0
# If a timer fires this many seconds late, this process was stopped or busy; the client was not necessarily slow.
LATE_TIMER: Final = 1.0
# A target in absolute form with an empty path, which means "/" (RFC 9112, 3.2.1).
_NO_PATH: Final = re.compile(rb"(https?://[^/?]+)(\?.*)?", re.IGNORECASE)
# Versions without chunked encoding, which HTTP/1.1 introduced.
_OLD_VERSIONS: Final = ("0.9", "1.0")

# The text of each refusal.
REFUSAL_TEXTS: Final = {
    HTTPStatus.BAD_REQUEST: "This is not valid HTTP.",
    HTTPStatus.REQUEST_TIMEOUT: "The request took too long to arrive. Send it again.",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "The request is too large.",
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE: "The request's headers are too large.",
}


class HeadTooLargeError(Exception):
    """Aborts the parsing of a request."""


class Http(HttpToolsProtocol):
    """uvicorn's HTTP protocol with deadlines for the client and limits for its requests.

    A deadline runs while the server waits for the client: for the first byte (CONNECTION_IDLE_TIMEOUT, also between two
    requests), the rest of a head, or the rest of a body. It is a single timer; a request that arrives whole needs none.
    """

    # The limit for all connections of this process.
    connections_max = 0
    # The part of a request that the client has begun to send and not finished.
    _awaited: Literal["head", "body"] | None = None
    _deadline: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None
    _is_refused = False
    # The status that answers a request that can't be parsed.
    _fault = HTTPStatus.BAD_REQUEST
    # Bytes since the current request began.
    _size = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.transport = cast(asyncio.Transport, ClosingTransport(transport, self.loop))
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
        self._unset_keepalive_if_required()
        self._parse(data)
        if self._is_refused or self._awaited is None:
            return
        if self._awaited == "head" and self._size > HEAD_MAX:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        elif self._size > REQUEST_MAX:
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        elif self._awaited != before:
            self._expect()

    def _parse(self, data: bytes) -> None:
        # A loop, because many requests with upgrades may arrive at once.
        while data:
            data = self._feed(data)

    def _feed(self, data: bytes) -> bytes:
        """Parse the data, and return what must be parsed next."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.send_400_response("")
        except httptools.HttpParserUpgrade as pause:
            if self._should_upgrade():
                self.handle_websocket_upgrade()
            elif self.parser.get_method() == b"CONNECT":
                self.send_400_response("")
            else:
                return self._without_upgrade(data[pause.args[0] :])
        return b""

    def _without_upgrade(self, rest: bytes) -> bytes:
        """Replace the parser, and return the request without its upgrade headers, to be parsed again. A server may
        ignore an upgrade (RFC 9110, 7.8), but the parser can't: it treats everything after the head as another
        protocol."""
        head = [self.parser.get_method(), b" ", self.url, b" HTTP/", self.parser.get_http_version().encode(), b"\r\n"]
        for name, value in self.headers:
            if name == b"connection":
                value = b", ".join(word for word in value.split(b",") if word.strip().lower() != b"upgrade")
            if name != b"upgrade":
                head += [name, b": ", value, b"\r\n"]
        self.parser = httptools.HttpRequestParser(self)
        # uvicorn sets the same leniency.
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        return b"".join([*head, b"\r\n", rest])

    def _should_upgrade(self) -> bool:
        """Whether this is a WebSocket handshake (RFC 6455, 4.2.1). Any other upgrade is ignored."""
        words = dict.fromkeys((b"connection", b"upgrade"), b"")
        for name, value in self.headers:
            if name == b"transfer-encoding" or (name == b"content-length" and value.strip() != b"0"):
                return False  # the WebSocket library doesn't accept a body
            if name in words:
                words[name] += b"," + value.lower()
        asked = {name: [word.strip() for word in value.split(b",")] for name, value in words.items()}
        is_asked = b"upgrade" in asked[b"connection"] and b"websocket" in asked[b"upgrade"]
        return is_asked and self.parser.get_method() == b"GET" and self.parser.get_http_version() not in _OLD_VERSIONS

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
        if self.parser.should_upgrade() and not self._should_upgrade():
            return  # the request is parsed again (_without_upgrade)
        if bare := _NO_PATH.fullmatch(self.url):
            self.url = bare[1] + b"/" + (bare[2] or b"")
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade() and not self._should_upgrade():
            return
        self._awaited = None
        self._size = 0
        super().on_message_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        if cycle.scope["http_version"] in _OLD_VERSIONS:
            app = Unchunked(app, cycle)
        super()._start_asgi_task(cycle, app)

    def send_400_response(self, msg: str) -> None:
        self._refuse(self._fault)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        # The first bytes of the next request arrived while this one was being answered.
        if self._awaited == "head":
            self._expect()

    # Deadlines.

    def _expect(self) -> None:
        """Start the deadline for the part that the client has begun to send."""
        if self._deadline is not None:
            self._deadline.cancel()
        wait = settings.REQUEST_HEAD_TIMEOUT if self._awaited == "head" else settings.REQUEST_BODY_TIMEOUT
        self._deadline = self.loop.call_later(wait, self._check_deadline, self.loop.time() + wait, self._awaited)

    def _check_deadline(self, due: float, awaited: str | None) -> None:
        self._deadline = None
        if self._awaited != awaited or (awaited == "head" and self._is_answering):
            return
        if self.flow.read_paused or self.loop.time() - due > LATE_TIMER:
            # The client may have sent the rest; this process has not read it.
            self._expect()
        else:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT)

    @property
    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _refuse(self, status: HTTPStatus) -> None:
        """Send an error response, unless another response has begun, and close the connection."""
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
            # The request has been answered without its body being read.
            self.transport.close()
            return
        if not self.transport.is_closing():
            self.transport.write(self._answer(status))
            self.transport.write_eof()
        self.loop.call_later(LINGERS_FOR, self.transport.abort)

    def _answer(self, status: HTTPStatus) -> bytes:
        detail = REFUSAL_TEXTS[status]
        kind, body = "text/plain; charset=utf-8", detail
        if getattr(self, "url", b"").startswith(b"/user"):
            document = {"type": "about:blank", "title": status.phrase, "status": status.value, "detail": detail}
            kind, body = "application/problem+json", json.dumps(document)
        # The client's scheme is not known here. That is harmless: browsers ignore HSTS over HTTP (RFC 6797, 8.1), and
        # without HSTS_SECONDS the header is absent.
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


class Unchunked:
    """Wraps the application for HTTP/1.0 clients: closing the connection ends a response of unknown length."""

    def __init__(self, application: Any, cycle: RequestResponseCycle) -> None:
        self._application = application
        self._cycle = cycle

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        has_length = False

        async def unchunked(message: Any) -> None:
            nonlocal has_length
            if message["type"] == "http.response.start":
                has_length = any(name.lower() == b"content-length" for name, _ in message.get("headers", ()))
                self._cycle.chunked_encoding = None if has_length else False
            elif not has_length:
                # uvicorn checks the body against the expected length.
                self._cycle.expected_content_length = len(message.get("body", b""))
            await send(message)

        await self._application(scope, receive, unchunked)
