"""What goes down one held stream, and when."""

import time
from collections.abc import AsyncIterator, Callable, Sequence

from django.conf import settings
from django.utils import timezone

from authsvc.api import sse
from authsvc.api.hub import Watch
from authsvc.lights import SignUpState
from livesettings.values import live


async def follow(
    watch: Watch, states: Sequence[SignUpState], *, seen: int, with_took: bool = False
) -> AsyncIterator[bytes]:
    """The stream's text, for a reader whose last version was `seen`: these states, at least one and in order of
    version, then what comes to the watch, until all lights are decided.

    Ends without that when the client has left or the stream is STREAM_MAX_AGE seconds old: the client comes back
    with its Last-Event-ID. Says once that the sign-up is delayed, and once that it is stalled; neither while it waits
    for the person's confirmation.
    """
    now = time.monotonic()
    end = now + settings.STREAM_MAX_AGE
    said_at = now
    began = _began(states[-1])
    is_delayed = False

    # What there is to say at once goes in one piece: each is a write here, and one more in the gateway.
    text = sse.RETRY
    for current in states[:-1]:
        text += sse.status_event(current, seen=seen, with_took=with_took)
        seen = current.version
    current = states[-1]
    # A held stream keeps one state (docs/adr/0023).
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
        # Both may have changed while this waited: the hub wakes everybody then.
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


def _began(state: SignUpState) -> float:
    """When the sign-up began, on the monotonic clock."""
    # Not later than now: where the clock was put back, what began before that begins in the future (docs/adr/0017).
    return time.monotonic() - max(0.0, (timezone.now() - state.started_at).total_seconds())


async def after_first(texts: AsyncIterator[bytes], then: Callable[[], None]) -> AsyncIterator[bytes]:
    """The same texts; calls `then` once the first of them is sent, or the reader has left."""
    try:
        yield await anext(texts, b"")
    finally:
        then()
    async for text in texts:
        yield text
