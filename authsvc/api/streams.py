"""The content and timing of one event stream."""

import time
from collections.abc import AsyncIterator, Callable, Sequence

from django.conf import settings
from django.utils import timezone

from authsvc.api import sse
from authsvc.api.hub import Watch
from authsvc.lights import TransactionState
from livesettings.values import live


async def follow(
    watch: Watch, states: Sequence[TransactionState], *, seen: int, with_took: bool = False
) -> AsyncIterator[bytes]:
    """Yield the stream's text for a reader whose last seen version was `seen`: first `states` (at least one, ordered by
    version), then the states that reach the watch, until all lights are decided.

    End earlier if the client has disconnected or the stream is STREAM_MAX_AGE seconds old; a client then reconnects
    with its Last-Event-ID. Send `delayed` and `stalled` at most once each, and `delayed` never while the sign-up awaits
    confirmation.
    """
    now = time.monotonic()
    end = now + settings.STREAM_MAX_AGE
    said_at = now
    began = _began(states[-1])
    is_delayed = False

    # Send everything available as one chunk: each chunk costs a write here and another one in the gateway.
    text = sse.RETRY
    for current in states[:-1]:
        text += sse.status_event(current, seen=seen, with_took=with_took)
        seen = current.version
    current = states[-1]
    # Keep only one state in memory while the stream is open (docs/adr/0023).
    del states
    is_stalled = False
    while not watch.is_closed and now < end:
        if watch.state is not None and watch.state.version >= current.version:
            if current.is_unconfirmed and not watch.state.is_unconfirmed:
                began = _began(watch.state)
            current = watch.state
        if current.version > seen:
            text += sse.status_event(current, seen=seen, with_took=with_took)
            seen = current.version
            said_at = now
        if current.is_complete:
            break
        if current.is_stalled and not is_stalled:
            is_stalled = True
            text += sse.STALLED
        # Read the live settings again: if they change, the hub wakes all streams.
        has_deadline = not (is_delayed or current.is_unconfirmed)
        if has_deadline and now >= began + live.SIGNUP_DEADLINE:
            has_deadline, is_delayed = False, True
            text += sse.DELAYED
        if now >= said_at + live.STREAM_HEARTBEAT:
            text += sse.HEARTBEAT
            said_at = now
        if text:
            yield text
            text = b""
        deadline = began + live.SIGNUP_DEADLINE if has_deadline else end
        await watch.wait(at_most=max(0.0, min(said_at + live.STREAM_HEARTBEAT, deadline, end) - now))
        now = time.monotonic()
    if text:
        yield text


def _began(state: TransactionState) -> float:
    """Return the start of the sign-up on the monotonic clock."""
    # At most now: after the wall clock is set back, started_at can lie in the future (docs/adr/0017).
    return time.monotonic() - max(0.0, (timezone.now() - state.started_at).total_seconds())


async def after_first(texts: AsyncIterator[bytes], then: Callable[[], None]) -> AsyncIterator[bytes]:
    """Pass `texts` through. Call `then` once the first of them is sent or the reader has left."""
    try:
        yield await anext(texts, b"")
    finally:
        then()
    async for text in texts:
        yield text
