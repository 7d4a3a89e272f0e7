"""The hub of a process: wakes all its held streams through one subscription to Redis.

Subscribe first, then read: a watch is registered before its state is first read, so no change falls in between.
Wake-ups may be lost (Redis is unavailable, or a subscriber is too slow), so the hub rereads all watched sign-ups from
the database with every heartbeat, after each reconnect, and every second while Redis is unavailable (docs/adr/0010).
"""

import asyncio
import contextlib
import contextvars
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final
from uuid import UUID

from redis.asyncio.client import PubSub

from authsvc.lights import TransactionState
from authsvc.metrics import REDIS_AWAY
from authsvc.signups.projection import CHANNEL, AsyncProjection, decode_wake_up
from livesettings.values import call_on_change, forget, live
from runtime.redis_clients import ANSWERS_WITHIN, AWAY_PAUSE, REDIS_ERRORS, SETTLES_WITHIN

logger = logging.getLogger(__name__)

READ_CHUNK: Final = 500
# Seconds without a message after which the hub pings Redis: a frozen Redis keeps its connections open but stays
# silent.
PING_AFTER: Final = 0.5

ReadStates = Callable[[Sequence[UUID]], Awaitable[dict[UUID, TransactionState]]]


class Watch:
    """One stream's view of one sign-up: the newest state that reached this process, and a bell that wakes the stream.

    The bell is a future that is done once it has rung: asyncio.Event and asyncio.timeout would add 8 % to the memory of
    a held stream (docs/adr/0051).
    """

    __slots__ = ("_bell", "is_closed", "state")

    def __init__(self) -> None:
        self.state: TransactionState | None = None
        self.is_closed = False
        self._bell: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def offer(self, state: TransactionState) -> None:
        """Accept the state if it is newer than the current one, or has the same version but became stalled."""
        if self.state is None or (state.version, state.is_stalled) > (self.state.version, self.state.is_stalled):
            self.state = state
            self.ring()

    def close(self) -> None:
        """End the stream, for example because the client has disconnected."""
        self.is_closed = True
        self.ring()

    def ring(self) -> None:
        """Wake the stream, so that it checks for changes."""
        if not self._bell.done():
            self._bell.set_result(None)

    async def wait(self, *, at_most: float) -> None:
        """Wait until the bell has rung since the last wait, or for `at_most` seconds. Allows one waiter only."""
        loop = asyncio.get_running_loop()
        timer = loop.call_later(at_most, self.ring)
        try:
            await self._bell
        finally:
            timer.cancel()
            self._bell = loop.create_future()


class StreamHub:
    """The watches of one event loop, by sign-up. Its background tasks start with the first watch."""

    def __init__(self, projection: AsyncProjection, read_states: ReadStates) -> None:
        self._projection = projection
        self._read_states = read_states
        self._watches: dict[UUID, set[Watch]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        # None: not known yet.
        self._is_subscribed: bool | None = None
        self._settled_at = 0.0
        self._reread_now = asyncio.Event()
        self._is_draining = False

    @contextmanager
    def watching(self, signup_id: UUID) -> Iterator[Watch]:
        """Register a watch for the duration of the block."""
        self._start()
        watch = Watch()
        if self._is_draining:
            watch.close()
        self._watches.setdefault(signup_id, set()).add(watch)
        try:
            yield watch
        finally:
            watches = self._watches[signup_id]
            watches.discard(watch)
            if not watches:
                del self._watches[signup_id]

    def drain(self) -> None:
        """Drain: end current and future streams, so that their clients reconnect to another process."""
        self._is_draining = True
        for watches in self._watches.values():
            for watch in watches:
                watch.close()

    async def close(self) -> None:
        """Stop the background tasks. Watches stay as they are."""
        if self._tasks:
            forget(self._wake_for_settings)
        tasks, self._tasks = self._tasks, []
        while pending := {task for task in tasks if not task.done()}:
            # Cancel repeatedly: on Python 3.11 the wait_for inside redis-py can swallow a cancellation.
            for task in pending:
                task.cancel()
            await asyncio.wait(pending, timeout=0.1)

    def deliver(self, states: Sequence[TransactionState]) -> None:
        """Offer these states to the watches of their sign-ups."""
        for state in states:
            for watch in self._watches.get(state.transaction_id, ()):
                watch.offer(state)

    def _start(self) -> None:
        if not self._tasks:
            self._loop = asyncio.get_running_loop()
            call_on_change(self._wake_for_settings)
            # Use fresh contexts: the first request's context must not outlive the request.
            self._tasks = [
                asyncio.create_task(self._subscribe(), context=contextvars.Context()),
                asyncio.create_task(self._reread(), context=contextvars.Context()),
            ]

    def _wake_for_settings(self) -> None:
        """Wake all streams, because heartbeat or deadline may have changed. Called by the live settings' thread."""
        self._loop.call_soon_threadsafe(self._settings_changed)

    def _settings_changed(self) -> None:
        self._reread_now.set()
        for watches in self._watches.values():
            for watch in watches:
                watch.ring()

    async def _subscribe(self) -> None:
        while True:
            try:
                await self._listen()
                reason = "it ended the subscription"
            except REDIS_ERRORS as error:
                reason = str(error) or type(error).__name__
            except Exception as error:
                logger.exception("the subscription failed; subscribing again")
                reason = type(error).__name__
            if self._is_subscribed is not False:
                logger.warning("Redis is unavailable (%s): streams read the database every second", reason)
                self._is_subscribed = False
                REDIS_AWAY.set(1)
                self._reread_now.set()
            await asyncio.sleep(AWAY_PAUSE)

    async def _listen(self) -> None:
        async with self._projection.subscription() as subscription:
            await subscription.subscribe(CHANNEL)
            while True:
                message = await _next_message(subscription)
                if message["type"] == "subscribe":
                    # Redis has confirmed the subscription: no wake-up is lost from now on; reread for earlier ones.
                    self._is_subscribed = True
                    self._settled_at = time.monotonic() + SETTLES_WITHIN
                    REDIS_AWAY.set(0)
                    self._reread_now.set()
                elif message["type"] == "message":
                    self.deliver(decode_wake_up(message["data"]))

    async def _reread(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(live.STREAM_HEARTBEAT if self._hears_all else AWAY_PAUSE):
                    await self._reread_now.wait()
            self._reread_now.clear()
            try:
                await self._read_all()
            except Exception:
                # The database may be unavailable too: keep the streams and retry in the next round.
                logger.exception("could not reread the states of held streams")

    @property
    def _hears_all(self) -> bool:
        """Whether wake-ups from all processes reach this one."""
        return bool(self._is_subscribed) and time.monotonic() >= self._settled_at

    async def _read_all(self) -> None:
        signup_ids = list(self._watches)
        for start in range(0, len(signup_ids), READ_CHUNK):
            states = await self._read_states(signup_ids[start : start + READ_CHUNK])
            self.deliver(list(states.values()))


async def _next_message(subscription: PubSub) -> Any:
    """Return the next message. Raise TimeoutError if Redis doesn't even answer a ping."""
    if message := await subscription.get_message(timeout=PING_AFTER):
        return message
    await subscription.ping()
    if message := await subscription.get_message(timeout=ANSWERS_WITHIN):
        return message
    raise TimeoutError("Redis doesn't answer a ping")
