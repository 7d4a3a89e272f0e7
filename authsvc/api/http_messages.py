"""Reading requests and sending answers over bare ASGI, for the API alone."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from http import HTTPStatus
from typing import Any, Final

import msgspec
from asgiref.typing import ASGIReceiveCallable, ASGISendCallable, HTTPScope
from django.conf import settings
from django.utils.translation import get_supported_language_variant
from django.utils.translation.trans_real import parse_accept_lang_header

from authsvc.api.problems import Problem
from authsvc.metrics import PROBLEMS, STREAMS

RawHeaders = list[tuple[bytes, bytes]]

_OF_STREAMS: Final[RawHeaders] = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


def header(scope: HTTPScope, name: bytes) -> str | None:
    """The header of this (lower-case) name; several are one list (RFC 9110, 5.3)."""
    values = [value for key, value in scope["headers"] if key == name]
    return b", ".join(values).decode("latin-1") if values else None


def language(scope: HTTPScope) -> str:
    """The best of the product's languages for the header Accept-Language."""
    for code, _priority in parse_accept_lang_header(header(scope, b"accept-language") or ""):
        with contextlib.suppress(LookupError):
            return get_supported_language_variant(code)
    return settings.LANGUAGE_CODE


async def read_body(scope: HTTPScope, receive: ASGIReceiveCallable, *, limit: int) -> bytes:
    """The whole body, of at most `limit` bytes. Raises Problem 413 or, when the client left half-way, 400."""
    too_long = Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"The body may have at most {limit} bytes.")
    length = header(scope, b"content-length") or ""
    if length.isascii() and length.isdigit() and int(length) > limit:
        raise too_long
    body = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise Problem(HTTPStatus.BAD_REQUEST, "The body ended too early.")
        body += message["body"]
        if len(body) > limit:
            raise too_long
        if not message["more_body"]:
            return body


async def send_json(
    send: ASGISendCallable,
    status: HTTPStatus,
    document: Mapping[str, Any],
    *,
    content_type: bytes = b"application/json",
    headers: Mapping[str, str] | None = None,
) -> None:
    body = msgspec.json.encode(document)
    await _start(
        send,
        status,
        [(b"content-type", content_type), (b"content-length", b"%d" % len(body)), (b"cache-control", b"no-store")],
        headers,
    )
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def send_problem(send: ASGISendCallable, problem: Problem) -> None:
    PROBLEMS.labels(problem.status.value).inc()
    await send_json(
        send, problem.status, problem.document(), content_type=b"application/problem+json", headers=problem.headers
    )


async def send_empty(send: ASGISendCallable, status: HTTPStatus, *, headers: Mapping[str, str] | None = None) -> None:
    await _start(send, status, [], headers)
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def send_stream(
    send: ASGISendCallable,
    receive: ASGIReceiveCallable,
    events: AsyncIterator[bytes],
    *,
    on_leave: Callable[[], None],
    headers: Mapping[str, str] | None = None,
) -> None:
    """Sends `events` as they come; calls `on_leave` when the client goes before they end."""
    await _start(send, HTTPStatus.OK, _OF_STREAMS, headers)
    leaving = asyncio.create_task(_call_on_disconnect(receive, on_leave))
    try:
        with STREAMS.track_inprogress():
            async for text in events:
                await send({"type": "http.response.body", "body": text, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
    finally:
        leaving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await leaving


async def send_head_of_stream(send: ASGISendCallable) -> None:
    """What HEAD is answered where GET would begin a stream."""
    await _start(send, HTTPStatus.OK, _OF_STREAMS)
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _call_on_disconnect(receive: ASGIReceiveCallable, on_leave: Callable[[], None]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    on_leave()


async def _start(
    send: ASGISendCallable, status: HTTPStatus, fixed: RawHeaders, headers: Mapping[str, str] | None = None
) -> None:
    more = [(name.lower().encode(), value.encode("latin-1")) for name, value in (headers or {}).items()]
    await send({"type": "http.response.start", "status": status.value, "headers": fixed + more, "trailers": False})
