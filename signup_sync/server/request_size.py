"""Limits the size and encoding of requests before anything reads them (docs/adr/0038).

The gateway has the same limits; these also protect a process without a gateway. The API limits the bodies of its own
requests, because it answers with problem documents.
"""

from collections.abc import Mapping, MutableMapping
from http import HTTPStatus
from typing import Any, Final

from authsvc.api.http_messages import send_problem
from authsvc.api.problems import Problem
from signup_sync.server.request_headers import has_readable_type, keep_own_cookies

# Maximum bytes of a path with its query. signup_sync.server.http_protocol has limited the headers already.
TARGET_MAX: Final = 8 * 1024
# Maximum bytes of a public form: the sign-up form with the longest texts, percent-encoded, has 20 KB.
FORM_MAX: Final = 32 * 1024
# The same in the administration: a list posts 60 bytes per selected row and shows at most 200 rows.
ADMIN_FORM_MAX: Final = 64 * 1024
# A WebSocket close code; before the handshake is answered, it becomes a 403.
_POLICY_VIOLATION: Final = 1008

# The header that tells which encoding is accepted (RFC 9110, 15.5.16).
_ACCEPTED: Final = {HTTPStatus.UNSUPPORTED_MEDIA_TYPE: {"Accept-Encoding": "identity"}}

_WORDS: Final = {
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: (
        "This is too long to be sent. Go back, shorten what you typed, and send it again."
    ),
    HTTPStatus.REQUEST_URI_TOO_LONG: "This address is too long.",
    HTTPStatus.NOT_IMPLEMENTED: "Send the body with a Content-Length, or in chunks without another Transfer-Encoding.",
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: "Send the body as text in UTF-8, without a Content-Encoding, and not in parts.",
}


class RequestTooLargeError(Exception):
    """The body exceeds its limit."""


class Measured:
    """Passes requests within the limits on to the application. Larger requests get 413 or 414, and those with an
    encoded body 415 or 501."""

    def __init__(self, application: Any) -> None:
        self._application = application

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if refusal := _refusal(scope):
            await _refuse(scope, send, refusal)
        elif scope["type"] == "http" and (most := body_limit(scope["path"])):
            await self._with_measured_body(scope, receive, send, most)
        else:
            await self._application(scope, receive, send)

    async def _with_measured_body(self, scope: Any, receive: Any, send: Any, most: int) -> None:
        size = 0
        has_begun = False

        async def measured() -> Any:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > most:
                raise RequestTooLargeError
            return message

        async def noted(message: Any) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self._application(scope, measured, noted)
        except RequestTooLargeError:
            if not has_begun:
                await _refuse(scope, send, HTTPStatus.REQUEST_ENTITY_TOO_LARGE)


def is_for_api(path: str) -> bool:
    return path == "/user" or path.startswith("/user/")


def body_limit(path: str) -> int | None:
    """Return the maximum bytes of a request body for this path, or None if its application has its own limit."""
    if is_for_api(path):
        return None
    return ADMIN_FORM_MAX if path.startswith("/admin/") else FORM_MAX


def _refusal(scope: MutableMapping[str, Any]) -> HTTPStatus | None:
    if scope["type"] not in ("http", "websocket"):
        return None
    if len(scope.get("raw_path") or scope["path"]) + len(scope.get("query_string", b"")) > TARGET_MAX:
        return HTTPStatus.REQUEST_URI_TOO_LONG
    keep_own_cookies(scope)
    if scope["type"] == "http" and not has_readable_type(scope):
        return HTTPStatus.UNSUPPORTED_MEDIA_TYPE
    if scope["type"] == "http" and (most := body_limit(scope["path"])) and _said_length(scope) > most:
        return HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    return None if scope["type"] == "websocket" else _refusal_of_encoding(scope)


def _refusal_of_encoding(scope: Mapping[str, Any]) -> HTTPStatus | None:
    """Refuse encoded bodies, whose size is known only after decoding."""
    for name, value in scope["headers"]:
        if name == b"content-encoding" and value.strip().lower() not in (b"", b"identity"):
            return HTTPStatus.UNSUPPORTED_MEDIA_TYPE
        if name == b"transfer-encoding" and value.strip().lower() != b"chunked":
            return HTTPStatus.NOT_IMPLEMENTED
    return None


def _said_length(scope: Mapping[str, Any]) -> int:
    """Return the Content-Length, or 0 if it is missing or invalid; the body is also counted as it arrives."""
    text = next((value for name, value in scope["headers"] if name == b"content-length"), b"")
    return int(text) if text.isdigit() and len(text) < 20 else 0


async def _refuse(scope: Mapping[str, Any], send: Any, status: HTTPStatus) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": _POLICY_VIOLATION})
        return
    if is_for_api(scope["path"]):
        await send_problem(send, Problem(status, _WORDS[status], headers=_ACCEPTED.get(status)))
        return
    body = _WORDS[status].encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(body))]
    headers += [(name.lower().encode(), value.encode()) for name, value in _ACCEPTED.get(status, {}).items()]
    await send({"type": "http.response.start", "status": status.value, "headers": headers})
    await send({"type": "http.response.body", "body": body})
