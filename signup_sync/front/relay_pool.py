"""Relays states from auth's streams to the browsers' WebSockets.

A relay reads one sign-up's stream and sends each state to the sign-up's Channels group. Every socket that shows the
sign-up is a member of the group, in any web process. It doesn't matter which process relays a sign-up. Each relayed
sign-up has a short lease in Redis, and every process checks the leases of the sign-ups that its sockets show and takes
over those without one. A lease means that some process relays the sign-up, not which one: two relays send the same
versions twice, and sockets ignore versions that they have shown. A lease therefore has no owner and is never released;
it expires (docs/adr/0009).
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from contextvars import Context
from http import HTTPStatus
from typing import Any, Final, TypeVar
from uuid import UUID
from weakref import WeakKeyDictionary

import aiohttp
from channels.layers import get_channel_layer
from redis.asyncio import Redis
from structlog.contextvars import bind_contextvars

from livesettings.values import live
from runtime.redis_clients import ANSWERS_WITHIN, AWAY_PAUSE, REDIS_ERRORS, CircuitBreaker, redis_pool
from signup_sync.front.gateway import Gateway, GatewayError, SubmittedUser
from signup_sync.front.states import LightsState
from signup_sync.front.stream_relay import StreamRelay

logger = logging.getLogger(__name__)
T = TypeVar("T")

# Seconds after which a lease expires, and between two renewals, of which one may fail.
LEASE_SECONDS: Final = 6
TEND_SECONDS: Final = 2.0
# Seconds after which a new sign-up gets a lease: most are complete by then, and the others share a round trip to Redis.
LEASED_AFTER: Final = 0.25
# Seconds for which a watched sign-up is left to the process that posted it, which takes the lease in that time.
TAKEN_OVER_AFTER: Final = 1.0
# Seconds to wait for the first state after auth has accepted a sign-up; auth sends it immediately.
FIRST_STATE_WITHIN: Final = 1.0
# Posts of one process that may wait for auth's verdict; further sign-ups get 503 with Retry-After (docs/adr/0022).
POSTS_MAX: Final = 1000
# Ended relays of one process whose last state waits for Redis. Each has about 2 KiB, and an outage may last for hours.
ENDED_MAX: Final = 1000


def group_of(signup_id: UUID) -> str:
    """Return the name of the Channels group whose members show this sign-up."""
    return f"signup.{signup_id}"


class RelayPool:
    """All relays of a process, its client of auth, and the leases. `relays()` creates it in the event loop."""

    def __init__(self) -> None:
        self.gateway = Gateway()
        self._redis = Redis.from_pool(redis_pool(ANSWERS_WITHIN, connections=1))
        self._running: dict[UUID, StreamRelay] = {}
        self._news: dict[UUID, StreamRelay] = {}
        self._has_news = asyncio.Event()
        self._unleased: set[UUID] = set()
        self._breaker = CircuitBreaker("sockets ask auth for the lights every second")
        # For each sign-up that sockets of this process show, the callbacks that make them re-read the state.
        self._watched: dict[UUID, set[Callable[[], None]]] = {}
        # Sign-ups that are watched but not relayed here, with the time since when.
        self._orphans: dict[UUID, float] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._work = asyncio.Event()
        self._renewed_at = time.monotonic()
        self._posts = 0
        self._spawn(self._tend())
        self._spawn(self._publish())

    async def close(self) -> None:
        """End all tasks and connections. Sign-ups continue; their leases expire."""
        while tasks := set(self._tasks):
            # Cancel repeatedly: before Python 3.12, asyncio.wait_for, which redis-py uses, may swallow a cancellation.
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=0.1)
        await self.gateway.close()
        await self._redis.aclose()
        if _relays.get(loop := asyncio.get_running_loop()) is self:
            del _relays[loop]

    async def sign_up(self, signup_id: UUID, user: SubmittedUser) -> LightsState:
        """Post a sign-up, start to relay it, and return its state once auth has given its verdict or waits for the
        confirmation; after SIGNUP_DEADLINE, return the last known state. Raises GatewayError.

        The work continues when the caller is cancelled, so a browser that leaves or posts again doesn't end a sign-up.
        """
        if self._posts >= POSTS_MAX:
            raise GatewayError(HTTPStatus.SERVICE_UNAVAILABLE, "too many sign-ups wait for auth", retry_after=5)
        self._posts += 1
        return await asyncio.shield(self._spawn(self._sign_up(signup_id, user)))

    def watch(self, signup_id: UUID, read_again: Callable[[], None]) -> None:
        """Ensure that this incomplete sign-up, which a socket of this process shows, is relayed. `read_again` is called
        every second while messages through Redis may be lost."""
        self._watched.setdefault(signup_id, set()).add(read_again)
        self._work.set()

    def unwatch(self, signup_id: UUID, read_again: Callable[[], None]) -> None:
        """End `watch`: the socket is closed, or its sign-up is complete."""
        self._watched[signup_id].discard(read_again)
        if not self._watched[signup_id]:
            del self._watched[signup_id]

    async def _sign_up(self, signup_id: UUID, user: SubmittedUser) -> LightsState:
        bind_contextvars(signup_id=str(signup_id))
        now = asyncio.get_running_loop().time
        # The deadline counts from here, so that it also covers a gateway that hangs.
        end = now() + live.SIGNUP_DEADLINE
        try:
            stream = await self.gateway.post_user(signup_id, user)
            if relay := self._running.get(signup_id):
                stream.close()
            else:
                relay = self._start(signup_id, stream)
                self._unleased.add(signup_id)
                self._work.set()
            state = await relay.auth_answer(until=max(end, now() + FIRST_STATE_WITHIN))
        finally:
            self._posts -= 1
        if state:
            return state
        raise GatewayError(HTTPStatus.SERVICE_UNAVAILABLE, "auth gave no state")

    def _start(self, signup_id: UUID, stream: aiohttp.ClientResponse | None = None) -> StreamRelay:
        relay = self._running[signup_id] = StreamRelay(
            signup_id, self.gateway, stream, tell=self._tell, is_watched=self._watched.__contains__
        )
        self._spawn(self._run(relay))
        return relay

    async def _run(self, relay: StreamRelay) -> None:
        bind_contextvars(signup_id=str(relay.signup_id))
        try:
            await relay.run()
        finally:
            del self._running[relay.signup_id]

    def _tell(self, relay: StreamRelay) -> None:
        self._news[relay.signup_id] = relay
        self._has_news.set()

    async def _publish(self) -> None:
        """Send each relay's latest state to its group, one at a time, because the layer's lock serializes sends anyway.
        A relay that changes again before its turn is sent once, with the latest state. No relay waits for Redis."""
        while True:
            await self._has_news.wait()
            self._has_news.clear()
            while self._news:
                if self._breaker.is_open:
                    await asyncio.sleep(AWAY_PAUSE)
                relay = self._news.pop(next(iter(self._news)))
                try:
                    await self._send(relay)
                except REDIS_ERRORS as error:
                    self._breaker.note_failure(error)
                    self._work.set()
                    self._news.setdefault(relay.signup_id, relay)
                    self._drop_old_news()
                except Exception:
                    logger.exception("a sign-up's state can't be sent to its group")

    def _drop_old_news(self) -> None:
        """Keep the backlog for Redis small. No socket depends on it: without Redis, they read the state."""
        ended = [signup_id for signup_id in self._news if signup_id not in self._running]
        for signup_id in ended[:-ENDED_MAX]:
            del self._news[signup_id]

    async def _send(self, relay: StreamRelay) -> None:
        if relay.state is None:
            return
        # The layer has no timeout for Redis.
        async with asyncio.timeout(ANSWERS_WITHIN):
            await get_channel_layer().group_send(
                group_of(relay.signup_id),
                {"type": "signup.news", "text": relay.state.text, "slowness": relay.slowness},
            )

    async def _tend(self) -> None:
        """Renew the leases of the relays in this process, and take over watched sign-ups that no process relays."""
        while True:
            self._work.clear()
            try:
                await self._lease(self._due(), only_free=False)
                for signup_id in await self._lease(self._left_alone(), only_free=True):
                    if signup_id in self._watched and signup_id not in self._running:
                        self._start(signup_id)
            except REDIS_ERRORS as error:
                self._breaker.note_failure(error)
            except Exception:
                logger.exception("the leases of the relays can't be renewed")
            if self._breaker.has_failed_lately:
                for read_again in [each for bells in self._watched.values() for each in bells]:
                    read_again()
                await asyncio.sleep(AWAY_PAUSE)
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(TEND_SECONDS):
                    await self._work.wait()
                    await asyncio.sleep(LEASED_AFTER)

    def _due(self) -> list[UUID]:
        """Return the running relays whose leases are due: all of them every TEND_SECONDS, in between only new ones."""
        new, self._unleased = self._unleased, set()
        now = time.monotonic()
        if now - self._renewed_at < TEND_SECONDS:
            return [signup_id for signup_id in new if signup_id in self._running]
        self._renewed_at = now
        return list(self._running)

    def _left_alone(self) -> list[UUID]:
        """Return the sign-ups watched for TAKEN_OVER_AFTER without a relay here; another process may relay them."""
        now = time.monotonic()
        orphans = self._watched.keys() - self._running.keys()
        self._orphans = {signup_id: self._orphans.get(signup_id, now) for signup_id in orphans}
        return [signup_id for signup_id, since in self._orphans.items() if now - since >= TAKEN_OVER_AFTER]

    async def _lease(self, signup_ids: Sequence[UUID], *, only_free: bool) -> list[UUID]:
        """Set the leases of these sign-ups, and return the sign-ups whose lease was set. While Redis is unreachable,
        there are no leases: the process that posted a sign-up relays it, and sockets elsewhere read the state."""
        if not signup_ids or self._breaker.is_open:
            return []
        async with self._redis.pipeline(transaction=False) as pipe:
            for signup_id in signup_ids:
                pipe.set(f"front:relay:{signup_id}", 1, ex=LEASE_SECONDS, nx=only_free)
            answers = await pipe.execute()
            set_now = [signup_id for signup_id, is_set in zip(signup_ids, answers, strict=True) if is_set]
            # Redis stores the time at which a lease expires. If its clock has been set back, that time is far off, and
            # nobody would take over from a dead relay. So no existing lease may outlive a new one (docs/adr/0017).
            for signup_id in set(signup_ids).difference(set_now):
                pipe.expire(f"front:relay:{signup_id}", LEASE_SECONDS, lt=True)
            await pipe.execute()
        self._breaker.note_success()
        return set_now

    def _spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        # Use a new context: a request's context would keep its objects, including its executor and thread, alive as
        # long as the task runs.
        context = Context()
        task = asyncio.get_running_loop().create_task(work, context=context)
        self._tasks.add(task)
        task.add_done_callback(self._forget, context=context)
        return task

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) and not isinstance(error, GatewayError):
            logger.error("a task of the relays failed", exc_info=error)


_relays: WeakKeyDictionary[asyncio.AbstractEventLoop, RelayPool] = WeakKeyDictionary()


def relays() -> RelayPool:
    """Return the relays of the running event loop. The first call creates them, since it needs the loop."""
    loop = asyncio.get_running_loop()
    if loop not in _relays:
        _relays[loop] = RelayPool()
    return _relays[loop]
