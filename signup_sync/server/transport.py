"""Enforces HTTPS and sets security headers for every response: pages, API, health, metrics, static files, sockets.

Django's middleware covers only Django's pages; these ASGI middlewares wrap everything (docs/adr/0047).
"""

import logging
from collections.abc import Awaitable, Mapping
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote

from django.conf import settings

from signup_sync.front.sockets import refuse
from signup_sync.server.request_size import is_for_api
from signup_sync.server.security_headers import Headers, security_headers

logger = logging.getLogger(__name__)

# Paths that probes and Prometheus request from this process directly, over plain HTTP inside the network.
_PLAIN: Final = ("/health/", "/metrics")
_FAILED: Final = b"An internal error occurred; it has been logged."


class SecurityHeaders:
    """Adds the security headers to every response; it is the outermost layer but for the registration. The proxy
    middleware inside it corrects the scope's scheme, which is therefore read only when the response begins."""

    def __init__(self, application: Any) -> None:
        self._application = application
        self._headers = {is_secure: security_headers(is_secure=is_secure) for is_secure in (True, False)}

    def __call__(self, scope: Any, receive: Any, send: Any) -> Awaitable[None]:
        if scope["type"] == "websocket":
            return self._answer(scope, receive, _SocketSender(scope, send, self._headers))
        return self._answer(scope, receive, _Sender(scope, send, self._headers))

    async def _answer(self, scope: Any, receive: Any, sender: "_Sender") -> None:
        """Answer errors here: the server's own error response would lack our headers."""
        try:
            await self._application(scope, receive, sender)
        except Exception:
            if sender.has_begun or scope["type"] not in ("http", "websocket"):
                raise
            logger.exception("%s failed", scope["path"])
            await sender.fail()


class HttpsOnly:
    """In production, redirects plain HTTP to HTTPS (pages, static files) or refuses it (sockets; the API refuses it
    itself). Probes and Prometheus are exempt: they connect to this process directly."""

    def __init__(self, application: Any) -> None:
        self._application = application

    def __call__(self, scope: Any, receive: Any, send: Any) -> Awaitable[None]:
        if settings.SECURE_SSL_REDIRECT and not _is_secure(scope):
            if scope["type"] == "websocket":
                return refuse(scope, receive, send)
            # The API refuses plain HTTP itself: a redirect would hide that a password was sent unencrypted.
            if not (scope["path"].startswith(_PLAIN) or is_for_api(scope["path"])):
                return _redirect(scope, send)
        answer: Awaitable[None] = self._application(scope, receive, send)
        return answer


def _is_secure(scope: Any) -> bool:
    return scope.get("scheme") in ("https", "wss")


class _Sender:
    """Adds headers to the start of a response that doesn't set them."""

    __slots__ = ("_headers", "_scope", "_send", "has_begun")

    def __init__(self, scope: Any, send: Any, headers: Mapping[bool, Headers]) -> None:
        self._scope = scope
        self._send = send
        self._headers = headers
        self.has_begun = False

    def __call__(self, message: Any) -> Awaitable[None]:
        self.has_begun = True
        if message["type"] == "http.response.start":
            there = {name.lower() for name, _ in message.get("headers", ())}
            more = [header for header in self._headers[_is_secure(self._scope)] if header[0] not in there]
            message = {**message, "headers": [*message.get("headers", ()), *more]}
        sent: Awaitable[None] = self._send(message)
        return sent

    async def fail(self) -> None:
        """Send a 500 response."""
        status = HTTPStatus.INTERNAL_SERVER_ERROR.value
        headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(_FAILED))]
        await self({"type": "http.response.start", "status": status, "headers": headers})
        await self({"type": "http.response.body", "body": _FAILED, "more_body": False})


class _SocketSender(_Sender):
    """Answers a refused handshake over HTTP, because the server's own response would lack our headers."""

    __slots__ = ("_gives_answer",)

    def __init__(self, scope: Any, send: Any, headers: Mapping[bool, Headers]) -> None:
        super().__init__(scope, send, headers)
        self._gives_answer = "websocket.http.response" in (scope.get("extensions") or {})

    def __call__(self, message: Any) -> Awaitable[None]:
        if message["type"] == "websocket.accept":
            self._gives_answer = False
        elif message["type"] == "websocket.close" and self._gives_answer:
            self.has_begun = True
            return self._refuse(HTTPStatus.FORBIDDEN)
        return super().__call__(message)

    async def fail(self) -> None:
        if not self._gives_answer:
            await self._send({"type": "websocket.close"})
        else:
            await self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR)

    async def _refuse(self, status: HTTPStatus) -> None:
        more = self._headers[_is_secure(self._scope)]
        headers = [(b"content-type", b"text/plain"), (b"content-length", b"0"), *more]
        start = {"type": "websocket.http.response.start", "status": status.value, "headers": headers}
        await self._send(start)
        await self._send({"type": "websocket.http.response.body", "body": b"", "more_body": False})


async def _redirect(scope: Any, send: Any) -> None:
    """Redirect to PUBLIC_URL, whatever host was requested, like Django's SecurityMiddleware."""
    path = scope.get("raw_path") or quote(scope["path"]).encode()
    location = b"https://" + settings.SECURE_SSL_HOST.encode() + path
    if scope["query_string"]:
        location += b"?" + scope["query_string"]
    headers = [(b"location", location), (b"content-length", b"0")]
    await send({"type": "http.response.start", "status": HTTPStatus.MOVED_PERMANENTLY.value, "headers": headers})
    await send({"type": "http.response.body", "body": b"", "more_body": False})
