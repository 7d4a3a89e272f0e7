"""The traffic page, and the event stream that feeds its charts."""

import asyncio
import json
import logging
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

import redis
from asgiref.sync import sync_to_async
from channels.db import database_sync_to_async
from django.contrib import admin
from django.db import close_old_connections
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.urls import URLPattern, path, reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_safe

from authsvc.accounts.two_factor.rules import may_administer
from authsvc.models import TrafficMinute
from authsvc.operations.traffic_history import MINUTE, point, read_days, read_seconds
from authsvc.signups.traffic_counts import figures_client
from runtime.admin_toolkit.page_admin import PageAdmin
from runtime.errors import is_transient

logger = logging.getLogger(__name__)

# Seconds after which a stream ends; the browser reconnects and gets all points again.
STREAM_SECONDS: Final = 600
# Past seconds reread with each new second of the live stream, to include late writes.
REREAD_SECONDS: Final = 3
# Longest pause in seconds between two checks whether the process stops.
CHECKED_EVERY: Final = 0.5

# Set when the process stops: the streams end, so that their pages reconnect to another process.
stopping: Final = threading.Event()


@dataclass(frozen=True)
class Span:
    """A time range of `steps` steps of `step` seconds each. A range with steps of one second is live."""

    title: Any
    unit: Any
    step: int
    steps: int

    @property
    def is_live(self) -> bool:
        return self.step == 1

    def begin(self, now: float) -> int:
        """The time at which the first step begins."""
        return int(now) // self.step * self.step - (self.steps - 1) * self.step


SPANS: Final = {
    "live": Span(gettext_lazy("Last 5 minutes, live"), gettext_lazy("per second"), 1, 300),
    "day": Span(gettext_lazy("Last 24 hours"), gettext_lazy("per 10 minutes"), 600, 145),
    "week": Span(gettext_lazy("Last 7 days"), gettext_lazy("per hour"), 3600, 169),
}


@admin.register(TrafficMinute)
class TrafficAdmin(PageAdmin):
    def page(self, request: HttpRequest) -> HttpResponse:
        name = request.GET.get("span", "live")
        span = SPANS.get(name) or SPANS["live"]
        context = {"spans": SPANS, "span": span, "chosen": name, "stream": reverse("admin:authsvc_traffic_stream")}
        return self.render(request, "authsvc/traffic.html", _("Traffic"), context)

    def more_urls(self) -> list[URLPattern]:
        return [path("stream/", stream, name="authsvc_traffic_stream")]


@require_safe
async def stream(request: HttpRequest) -> HttpResponse | StreamingHttpResponse:
    """Server-sent events: `points` with JSON {step, begin, points}, or `problem` with a sentence.

    Points replace those with the same `t`; the first event has all points, later ones only new ones. Answers 403
    without permission: a script can't follow a redirect to the login.
    """
    user = await request.auser()
    if not (may_administer(user) and await user.ahas_perm("authsvc.view_trafficminute")):
        return HttpResponse(
            _("You do not have permission to view this."), status=HTTPStatus.FORBIDDEN, content_type="text/plain"
        )
    span = SPANS.get(request.GET.get("span", "live"))
    if span is None:
        return HttpResponse(_("There is no such time range."), status=HTTPStatus.BAD_REQUEST, content_type="text/plain")
    # A stream is long-lived and must not hold the database connection that looked up the user.
    await sync_to_async(close_old_connections)()
    events = _live(span) if span.is_live else _days(span)
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return StreamingHttpResponse(events, content_type="text/event-stream; charset=utf-8", headers=headers)


async def _live(span: Span) -> AsyncIterator[bytes]:
    end = time.monotonic() + STREAM_SECONDS
    client = figures_client()
    read_from: int | None = None
    try:
        yield b"retry: 2000\n\n"
        while _may_continue(end):
            # The current second is still being counted.
            now = int(time.time())
            begin = span.begin(now - 1) if read_from is None else read_from
            try:
                seconds = await asyncio.to_thread(read_seconds, client, begin, now)
            except (redis.RedisError, OSError) as error:
                yield _event("problem", _redis_away(error))
                read_from = None
            else:
                yield _points(span, [point(second, counts) for second, counts in seconds], now - 1)
                read_from = now - REREAD_SECONDS
            await _pause(1 - time.time() % 1)
    finally:
        await asyncio.to_thread(client.close)


async def _days(span: Span) -> AsyncIterator[bytes]:
    end = time.monotonic() + STREAM_SECONDS
    steps = span.steps
    yield b"retry: 5000\n\n"
    while _may_continue(end):
        now = time.time()
        begin = int(now) // span.step * span.step - (steps - 1) * span.step
        try:
            points = await database_sync_to_async(read_days)(begin=begin, step=span.step)
        except Exception as error:
            if not is_transient(error):
                raise
            logger.warning("cannot read the traffic history: %s", error)
            yield _event("problem", _("The database is not responding. The page resumes when it does."))
        else:
            yield _points(span, points, now)
            # From now on send only the previous step, which may have got its last minute, and the current one.
            steps = 2
        await _pause(MINUTE)


def _may_continue(end: float) -> bool:
    """Whether a stream that ends at this time of time.monotonic() has not ended yet."""
    return time.monotonic() < end and not stopping.is_set()


async def _pause(seconds: float) -> None:
    """Wait for that many seconds, or until the process stops."""
    until = time.monotonic() + seconds
    while _may_continue(until):  # noqa: ASYNC110 - an asyncio.Event belongs to one event loop, and tests have several
        await asyncio.sleep(min(CHECKED_EVERY, until - time.monotonic()))


def _points(span: Span, points: Any, now: float) -> bytes:
    return _event("points", {"step": span.step, "begin": span.begin(now), "steps": span.steps, "points": points})


def _redis_away(error: Exception) -> str:
    words = _("Redis is not responding (%(error)s). Check that it is running; the page resumes when it responds.")
    return words % {"error": error}


def _event(kind: str, data: object) -> bytes:
    return f"event: {kind}\ndata: {json.dumps(data)}\n\n".encode()
