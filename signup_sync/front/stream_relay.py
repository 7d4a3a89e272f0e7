"""Reads one sign-up's stream from auth until the sign-up is complete, reconnecting when the connection is lost."""

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from random import uniform
from typing import Final
from uuid import UUID

import aiohttp
from django.conf import settings

from runtime.backoff import doubled
from signup_sync.front.gateway import Gateway, GatewayError
from signup_sync.front.sse import COMMENT, ServerEvent, read_events
from signup_sync.front.states import LightsState, Slowness, read_state

logger = logging.getLogger(__name__)
# Seconds between attempts to reopen a lost stream: the first pause, which doubles each time, and the longest.
FIRST_PAUSE: Final = 0.25
LONGEST_PAUSE: Final = 10.0


def reconnect_pause(failures: int) -> float:
    """Return the seconds until the next attempt, with jitter so that clients that failed together don't retry
    together."""
    return doubled(FIRST_PAUSE, times=failures, most=LONGEST_PAUSE) * uniform(0.5, 1.0)  # noqa: S311 - no secret


class StreamRelay:
    """Reads one sign-up's stream until the sign-up is complete, for at most STREAM_MAX_AGE; then a process whose
    sockets still show the sign-up takes over. While the sign-up waits for confirmation, perhaps for hours, the relay
    ends as soon as no socket of this process shows it."""

    def __init__(
        self,
        signup_id: UUID,
        gateway: Gateway,
        stream: aiohttp.ClientResponse | None,
        *,
        tell: Callable[["StreamRelay"], None],
        is_watched: Callable[[UUID], bool],
    ) -> None:
        self.signup_id = signup_id
        self.state: LightsState | None = None
        self.slowness: Slowness | None = None
        self._gateway = gateway
        self._stream = stream
        self._tell = tell
        self._is_watched = is_watched
        self._answered_or_over = asyncio.Event()

    async def auth_answer(self, *, until: float) -> LightsState | None:
        """Wait until auth has given its verdict or waits for the confirmation, and return that state. At the event-loop
        time `until`, return the last known state."""
        with suppress(TimeoutError):
            async with asyncio.timeout_at(until):
                await self._answered_or_over.wait()
        return self.state

    async def run(self) -> None:
        end = time.monotonic() + settings.STREAM_MAX_AGE
        failures = 0
        try:
            while not self._is_over and time.monotonic() < end:
                seen, ask_after = self._version, 0
                try:
                    await self._read_stream()
                except GatewayError as problem:
                    if not problem.may_pass:
                        logger.warning("sign-up %s is no longer relayed: %s", self.signup_id, problem)
                        return
                    logger.info("sign-up %s has no stream: %s", self.signup_id, problem)
                    ask_after = problem.retry_after or 0
                except (aiohttp.ClientError, TimeoutError, ValueError) as error:
                    logger.info("sign-up %s lost its stream: %r", self.signup_id, error)
                failures = 0 if self._version > seen else failures + 1
                if not self._is_over:
                    await asyncio.sleep(max(ask_after, reconnect_pause(failures)))
        finally:
            self._answered_or_over.set()

    async def _read_stream(self) -> None:
        stream, self._stream = self._stream, None
        if stream is None:
            stream = await self._gateway.open_events(self.signup_id, seen=self._version)
        if stream is None:
            # There are no further events. Read the state, because only a state from auth can say that it is complete.
            self._take(await self._gateway.read_state(self.signup_id))
            return
        async with stream:
            # Read to the end, which follows the last state, so that the connection can be reused for the next sign-up.
            async for event in read_events(stream.content):
                self._pass_on(event)
                if self._is_left_waiting:
                    stream.close()
                    return

    def _pass_on(self, event: ServerEvent) -> None:
        if event.kind == "status":
            self._take(read_state(event.data))
        elif event.kind in ("delayed", "stalled"):
            self.slowness = "stalled" if "stalled" in (event.kind, self.slowness) else "delayed"
            self._tell(self)
        elif event.kind == COMMENT:
            # The channel layer delivers at most once; a socket gets a missed state with the next heartbeat.
            self._tell(self)

    def _take(self, state: LightsState | None) -> None:
        if state is None or state.version <= self._version:
            return
        self.state = state
        if state.is_answered:
            self._answered_or_over.set()
        self._tell(self)

    @property
    def _version(self) -> int:
        return 0 if self.state is None else self.state.version

    @property
    def _is_over(self) -> bool:
        return (self.state is not None and self.state.complete) or self._is_left_waiting

    @property
    def _is_left_waiting(self) -> bool:
        is_waiting = self.state is not None and self.state.awaiting is not None
        return is_waiting and not self._is_watched(self.signup_id)
