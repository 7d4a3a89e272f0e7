"""HTTPS and the security headers of every answer, whoever gives it: pages, API, health, metrics, static files, sockets.

Django's middleware sees its own pages alone. This stands before all of them, behind what believes the proxies: `scheme`
is what the person's browser spoke (docs/adr/0047).
"""

from collections.abc import Awaitable
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.middleware.security import SecurityMiddleware

from signup_sync.front.sockets import refuse

# For every answer that does not say otherwise itself. The policy is for what is no page: Django's have their own.
DEFAULTS: Final = (
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
# Asked by probes and by Prometheus, inside: each over plain HTTP, and about this very process.
_PLAIN: Final = ("/health/", "/metrics")
_API: Final = "/user"

Headers = list[tuple[bytes, bytes]]


class Transport:
    def __init__(self, application: Any) -> None:
        self._application = application
        self._headers = {is_secure: _security_headers(is_secure=is_secure) for is_secure in (True, False)}

    def __call__(self, scope: Any, receive: Any, send: Any) -> Awaitable[None]:
        """No coroutine of its own: it would be kept for as long as a stream is held (docs/adr/0023)."""
        is_secure = scope.get("scheme") in ("https", "wss")
        headers = self._headers[is_secure]
        is_refused = settings.SECURE_SSL_REDIRECT and not is_secure
        if scope["type"] == "websocket":
            sender: _Sender = _SocketSender(send, headers, extensions=scope.get("extensions") or {})
            if is_refused:
                return refuse(scope, receive, sender)
        else:
            sender = _Sender(send, headers)
            # The API says itself what it refuses: a redirect would hide that a password went over the wire.
            if is_refused and not (scope["path"].startswith(_PLAIN) or is_for_api(scope["path"])):
                return _redirect(scope, sender)
        answer: Awaitable[None] = self._application(scope, receive, sender)
        return answer


def is_for_api(path: str) -> bool:
    return path == _API or path.startswith(f"{_API}/")


class _Sender:
    """Adds headers to the beginning of an answer, where they are not in it."""

    __slots__ = ("_headers", "_send")

    def __init__(self, send: Any, headers: Headers) -> None:
        self._send = send
        self._headers = headers

    def __call__(self, message: Any) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            there = {name.lower() for name, _ in message.get("headers", ())}
            more = [header for header in self._headers if header[0] not in there]
            message = {**message, "headers": [*message.get("headers", ()), *more]}
        sent: Awaitable[None] = self._send(message)
        return sent


class _SocketSender(_Sender):
    """A handshake that is refused is an HTTP answer. The server would give it by itself, without a header of ours."""

    __slots__ = ("_gives_answer",)

    def __init__(self, send: Any, headers: Headers, *, extensions: Any) -> None:
        super().__init__(send, headers)
        self._gives_answer = "websocket.http.response" in extensions

    def __call__(self, message: Any) -> Awaitable[None]:
        if message["type"] == "websocket.accept":
            self._gives_answer = False
        elif message["type"] == "websocket.close" and self._gives_answer:
            return self._refuse()
        return super().__call__(message)

    async def _refuse(self) -> None:
        headers = [(b"content-type", b"text/plain"), (b"content-length", b"0"), *self._headers]
        start = {"type": "websocket.http.response.start", "status": HTTPStatus.FORBIDDEN.value, "headers": headers}
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


def _security_headers(*, is_secure: bool) -> Headers:
    """What Django's SecurityMiddleware puts on a page, by Django's own settings, and ours."""
    request = HttpRequest()
    request._get_scheme = lambda: "https" if is_secure else "http"  # type: ignore[attr-defined]
    response = HttpResponse(headers={"Content-Type": "none"})
    SecurityMiddleware(lambda _: response).process_response(request, response)
    del response.headers["Content-Type"]
    django = [(name.lower().encode(), value.encode()) for name, value in response.headers.items()]
    return [*django, *DEFAULTS]
