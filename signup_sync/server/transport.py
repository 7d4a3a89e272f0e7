"""HTTPS and the security headers of every answer, whoever gives it: pages, API, health, metrics, static files, sockets.

Django's middleware sees its own pages alone; these stand before everything (docs/adr/0047).
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

# Asked by probes and by Prometheus, inside: each over plain HTTP, and about this very process.
_PLAIN: Final = ("/health/", "/metrics")
_FAILED: Final = b"This is our mistake; it is logged."


class SecurityHeaders:
    """Stands outside everything else, so that no answer goes past it. What believes the proxies is inside and corrects
    the scope's scheme, which is looked at when the answer begins."""

    def __init__(self, application: Any) -> None:
        self._application = application
        self._headers = {is_secure: security_headers(is_secure=is_secure) for is_secure in (True, False)}

    def __call__(self, scope: Any, receive: Any, send: Any) -> Awaitable[None]:
        if scope["type"] == "websocket":
            return self._answer(scope, receive, _SocketSender(scope, send, self._headers))
        return self._answer(scope, receive, _Sender(scope, send, self._headers))

    async def _answer(self, scope: Any, receive: Any, sender: "_Sender") -> None:
        """The server would answer for an error that escapes without a header of ours."""
        try:
            await self._application(scope, receive, sender)
        except Exception:
            if sender.has_begun or scope["type"] not in ("http", "websocket"):
                raise
            logger.exception("%s failed", scope["path"])
            await sender.fail()


class HttpsOnly:
    """In production, what comes over plain HTTP is redirected (pages, static files) or refused (API, sockets). Probes
    and Prometheus ask inside, each for this very process."""

    def __init__(self, application: Any) -> None:
        self._application = application

    def __call__(self, scope: Any, receive: Any, send: Any) -> Awaitable[None]:
        if settings.SECURE_SSL_REDIRECT and not _is_secure(scope):
            if scope["type"] == "websocket":
                return refuse(scope, receive, send)
            # The API says itself what it refuses: a redirect would hide that a password went over the wire.
            if not (scope["path"].startswith(_PLAIN) or is_for_api(scope["path"])):
                return _redirect(scope, send)
        answer: Awaitable[None] = self._application(scope, receive, send)
        return answer


def _is_secure(scope: Any) -> bool:
    return scope.get("scheme") in ("https", "wss")


class _Sender:
    """Adds headers to the beginning of an answer, where they are not in it."""

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
        """Answers that this is our mistake."""
        status = HTTPStatus.INTERNAL_SERVER_ERROR.value
        headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(_FAILED))]
        await self({"type": "http.response.start", "status": status, "headers": headers})
        await self({"type": "http.response.body", "body": _FAILED, "more_body": False})


class _SocketSender(_Sender):
    """A handshake that is refused is an HTTP answer. The server would give it by itself, without a header of ours."""

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
    """To PUBLIC_URL, whatever host was asked for, as Django's SecurityMiddleware does it."""
    path = scope.get("raw_path") or quote(scope["path"]).encode()
    location = b"https://" + settings.SECURE_SSL_HOST.encode() + path
    if scope["query_string"]:
        location += b"?" + scope["query_string"]
    headers = [(b"location", location), (b"content-length", b"0")]
    await send({"type": "http.response.start", "status": HTTPStatus.MOVED_PERMANENTLY.value, "headers": headers})
    await send({"type": "http.response.body", "body": b"", "more_body": False})
