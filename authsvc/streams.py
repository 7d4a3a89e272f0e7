"""What goes down one held stream, and when."""

import time
from collections.abc import AsyncIterator, Sequence

from django.conf import settings
from django.utils import timezone

from authsvc import sse
from authsvc.hub import Watch
from authsvc.lights import SignUpState


async def follow(watch: Watch, states: Sequence[SignUpState], *, seen: int) -> AsyncIterator[bytes]:
    """The stream's text, for a reader whose last version was `seen`: these states, at least one and in order of
    version, then what comes to the watch, until all lights are decided.

    Ends without that when the client has left or the stream is STREAM_MAX_AGE seconds old: the client comes back
    with its Last-Event-ID. Says once that the sign-up is delayed.
    """
    now = time.monotonic()
    end = now + settings.STREAM_MAX_AGE
    heartbeat = now + settings.STREAM_HEARTBEAT
    age = (timezone.now() - states[-1].started_at).total_seconds()
    deadline = now + max(0.0, settings.SIGNUP_DEADLINE - age)

    yield sse.RETRY
    for state in states[:-1]:
        yield sse.status_event(state, seen=seen)
        seen = state.version
    current = states[-1]
    while not watch.is_closed and now < end:
        if watch.state is not None and watch.state.version > current.version:
            current = watch.state
        if current.version > seen:
            yield sse.status_event(current, seen=seen)
            seen = current.version
            heartbeat = now + settings.STREAM_HEARTBEAT
        if current.is_complete:
            return
        if now >= deadline:
            yield sse.DELAYED
            deadline = end
        if now >= heartbeat:
            yield sse.HEARTBEAT
            heartbeat = now + settings.STREAM_HEARTBEAT
        await watch.wait(at_most=max(0.0, min(heartbeat, deadline, end) - now))
        now = time.monotonic()
