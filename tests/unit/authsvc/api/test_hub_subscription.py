"""The hub's background tasks, with a fake subscription instead of Redis, and with pauses of no length."""

import asyncio
import contextvars
import logging
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest
from django.utils import timezone
from redis.exceptions import ConnectionError as RedisConnectionError

from authsvc.api import hub as module
from authsvc.api.hub import PING_AFTER, StreamHub, Watch
from authsvc.lights import Status, TransactionState, Verdict
from authsvc.metrics import REDIS_AWAY
from authsvc.signups.projection import CHANNEL
from livesettings.values import forget, take
from runtime.redis_clients import ANSWERS_WITHIN, SETTLES_WITHIN
from tests.unit.fakes import Clock
from tests.waiting import PATIENCE, eventually_async

SUBSCRIBED = {"type": "subscribe", "data": 1}
of_caller: contextvars.ContextVar[str] = contextvars.ContextVar("of_caller", default="nobody")


def begun(signup_id: UUID) -> TransactionState:
    return TransactionState.all_pending(signup_id, started_at=timezone.now(), services=["auth", "chat"])


def decide(state: TransactionState) -> TransactionState:
    return state.decided([Verdict("chat", Status.SUCCESS)], at=timezone.now())


class Subscription:
    """Returns each message that a test puts into `messages`, and raises exceptions among them."""

    def __init__(self) -> None:
        self.messages: asyncio.Queue[Any] = asyncio.Queue()
        self.channels: list[str] = []
        self.contexts: list[str] = []
        self.swallows_cancellations = 0

    @asynccontextmanager
    async def subscription(self) -> AsyncIterator["Subscription"]:
        self.contexts.append(of_caller.get())
        yield self

    async def subscribe(self, channel: str) -> None:
        self.channels.append(channel)

    async def get_message(self, *, timeout: float) -> Any:  # noqa: ASYNC109 - the client's own signature
        while True:
            try:
                message = await self.messages.get()
            except asyncio.CancelledError:
                if not self.swallows_cancellations:
                    raise
                self.swallows_cancellations -= 1
                continue
            if isinstance(message, Exception):
                raise message
            return message


class Rows:
    """A database with every sign-up. It records the IDs of each query."""

    def __init__(self) -> None:
        self.asked: list[list[UUID]] = []
        self.contexts: list[str] = []

    async def read(self, signup_ids: Sequence[UUID]) -> dict[UUID, TransactionState]:
        self.asked.append(list(signup_ids))
        self.contexts.append(of_caller.get())
        return {signup_id: begun(signup_id) for signup_id in signup_ids}


@pytest.fixture
async def redis() -> Subscription:
    return Subscription()


@pytest.fixture
def rows() -> Rows:
    return Rows()


@pytest.fixture
async def hub(redis: Subscription, rows: Rows, settings, monkeypatch) -> AsyncIterator[StreamHub]:
    settings.STREAM_HEARTBEAT = 600
    monkeypatch.setattr(module, "AWAY_PAUSE", 600.0)
    monkeypatch.setattr(module, "SETTLES_WITHIN", 0.0)
    running = StreamHub(redis, rows.read)
    yield running
    await running.close()


@pytest.fixture(autouse=True)
def settings_of_the_environment() -> Iterator[None]:
    """Leave no live setting changed."""
    yield
    take({})


async def holds(condition: Any, what: str) -> None:
    async def does() -> bool:
        return bool(condition())

    await eventually_async(does, what=what)


# --- Wake-ups -----------------------------------------------------------------------------------------------------


async def test_the_hub_subscribes_once_and_then_reads_all_watched_states(hub, redis, rows):
    first, second = uuid4(), uuid4()
    REDIS_AWAY.set(1)
    with hub.watching(first), hub.watching(second):
        await holds(lambda: redis.channels, "it has subscribed")
        assert (redis.channels, rows.asked) == ([CHANNEL], [])
        redis.messages.put_nowait(SUBSCRIBED)
        await holds(lambda: rows.asked, "it has read the states")
        assert sorted(rows.asked[0]) == sorted([first, second])
        assert REDIS_AWAY._value.get() == 0
        assert len(rows.asked) == 1


async def test_a_message_brings_states_to_their_watches_and_other_messages_nothing(hub, redis, rows):
    mine, other = begun(uuid4()), begun(uuid4())
    answered = decide(mine)
    with hub.watching(mine.transaction_id) as watch:
        redis.messages.put_nowait({"type": "pong", "data": b"nothing to decode"})
        redis.messages.put_nowait({"type": "message", "data": msgspec.json.encode([decide(other), answered])})
        await holds(lambda: watch.state == answered, "the state is there")
        assert rows.asked == []


async def test_the_hubs_tasks_inherit_no_context_of_the_request_that_started_them(hub, redis, rows):
    of_caller.set("a request")
    with hub.watching(uuid4()):
        redis.messages.put_nowait(SUBSCRIBED)
        await holds(lambda: rows.contexts, "it has read the states")
    assert (redis.contexts, rows.contexts) == (["nobody"], ["nobody"])


# --- Outages ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RedisConnectionError("it refuses"), "it refuses"),
        (TimeoutError(), "TimeoutError"),
        (ValueError("a bug"), "ValueError"),
    ],
)
@pytest.mark.parametrize("was_subscribed", [True, False])
async def test_an_outage_is_logged_once_and_the_database_is_read_meanwhile(
    hub, redis, rows, monkeypatch, caplog, error, reason, was_subscribed
):
    caplog.set_level(logging.WARNING)
    monkeypatch.setattr(module, "AWAY_PAUSE", 0.01)
    REDIS_AWAY.set(0)
    with hub.watching(uuid4()) as watch:
        if was_subscribed:
            redis.messages.put_nowait(SUBSCRIBED)
        for _ in range(3):
            redis.messages.put_nowait(error)
        await holds(lambda: len(redis.channels) == 4, "it has subscribed again each time")
        await holds(lambda: len(rows.asked) > 5, "it reads the database again and again")
        assert watch.state is not None
        assert REDIS_AWAY._value.get() == 1
    said = [record.getMessage() for record in caplog.records]
    assert said.count(f"Redis is unavailable ({reason}): streams read the database every second") == 1
    assert said.count("the subscription failed; subscribing again") == (3 if isinstance(error, ValueError) else 0)


async def test_the_next_outage_is_logged_again(hub, redis, monkeypatch, caplog):
    monkeypatch.setattr(module, "AWAY_PAUSE", 0.01)
    with hub.watching(uuid4()):
        for message in (TimeoutError(), SUBSCRIBED, TimeoutError()):
            redis.messages.put_nowait(message)
        await holds(lambda: len(redis.channels) == 3, "it has subscribed again")
    assert caplog.text.count("Redis is unavailable (TimeoutError)") == 2


async def test_an_outage_makes_the_hub_read_the_states_at_once(hub, redis, rows):
    with hub.watching(uuid4()):
        redis.messages.put_nowait(SUBSCRIBED)
        await holds(lambda: len(rows.asked) == 1, "it has read the states")
        redis.messages.put_nowait(TimeoutError())
        await holds(lambda: len(rows.asked) == 2, "it has read them again")


async def test_a_subscription_that_ends_is_an_outage(hub, monkeypatch, caplog):
    async def end() -> None:
        """Do nothing: no settings are followed."""

    monkeypatch.setattr(hub, "_listen", end)
    with hub.watching(uuid4()):
        await holds(lambda: "Redis is unavailable (it ended the subscription)" in caplog.text, "it is logged")


class Scripted:
    """Returns these from get_message, in turn."""

    def __init__(self, *messages: Any) -> None:
        self.messages = list(messages)
        self.calls: list[Any] = []

    async def get_message(self, *, timeout: float) -> Any:  # noqa: ASYNC109 - the client's own signature
        self.calls.append(timeout)
        return self.messages.pop(0)

    async def ping(self) -> None:
        self.calls.append("ping")


async def test_a_silent_redis_is_pinged_and_its_subscription_ends_without_an_answer():
    talks, pinged, frozen = Scripted(SUBSCRIBED), Scripted(None, {"type": "pong"}), Scripted(None, None)
    assert await module._next_message(talks) == SUBSCRIBED
    assert await module._next_message(pinged) == {"type": "pong"}
    with pytest.raises(TimeoutError, match="Redis doesn't answer a ping"):
        await module._next_message(frozen)
    assert talks.calls == [PING_AFTER]
    assert pinged.calls == frozen.calls == [PING_AFTER, "ping", ANSWERS_WITHIN]


# --- Reading again ------------------------------------------------------------------------------------------------


async def test_with_each_heartbeat_the_states_are_read_again(hub, redis, rows, settings):
    settings.STREAM_HEARTBEAT = 0.01
    with hub.watching(uuid4()):
        redis.messages.put_nowait(SUBSCRIBED)
        await holds(lambda: len(rows.asked) > 5, "it reads them again and again")


async def test_between_heartbeats_nothing_is_read_where_all_wake_ups_arrive(hub, redis, rows, monkeypatch):
    monkeypatch.setattr(module, "AWAY_PAUSE", 0.001)
    state = begun(uuid4())
    with hub.watching(state.transaction_id) as watch:
        redis.messages.put_nowait(SUBSCRIBED)
        await holds(lambda: rows.asked and hub._is_subscribed, "it has read the states")
        already = len(rows.asked)
        # Waiting for each of these takes longer than the pause between two readings during an outage.
        for _ in range(3):
            state = msgspec.structs.replace(state, version=state.version + 1)
            redis.messages.put_nowait({"type": "message", "data": msgspec.json.encode([state])})
            await holds(lambda: watch.state == state, "the state is there")  # noqa: B023 - awaited at once
        # The round that was waiting when it was subscribed may end once more.
        assert len(rows.asked) <= already + 1


async def test_wake_ups_are_trusted_once_other_processes_have_noticed_that_redis_is_back(hub, redis, monkeypatch):
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(module, "SETTLES_WITHIN", SETTLES_WITHIN)
    assert hub._hears_all is False
    with hub.watching(uuid4()):
        redis.messages.put_nowait(SUBSCRIBED)
        await holds(lambda: hub._is_subscribed, "it is subscribed")
        assert hub._hears_all is False
        clock.now += SETTLES_WITHIN - 0.001
        assert hub._hears_all is False
        clock.now = 1000.0 + SETTLES_WITHIN
        assert hub._hears_all is True


async def test_without_anything_to_watch_nothing_is_read(hub, redis, rows):
    with hub.watching(uuid4()):
        pass
    await hub._read_all()
    assert rows.asked == []


@pytest.mark.parametrize("held", [1, 2, 3, 5])
async def test_the_states_are_read_in_chunks_each_once(hub, rows, monkeypatch, held):
    monkeypatch.setattr(module, "READ_CHUNK", 2)
    signup_ids = [uuid4() for _ in range(held)]
    hub._watches = {signup_id: set() for signup_id in signup_ids}
    await hub._read_all()
    assert rows.asked == [signup_ids[start : start + 2] for start in range(0, held, 2)]


# --- Settings -----------------------------------------------------------------------------------------------------


async def test_a_changed_setting_wakes_all_watches_and_makes_the_hub_read_the_states(hub, redis, rows):
    with hub.watching(uuid4()) as first, hub.watching(uuid4()) as second:
        await asyncio.sleep(0)
        await asyncio.to_thread(take, {"SIGNUP_DEADLINE": 7.0})
        for watch in (first, second):
            async with asyncio.timeout(PATIENCE):
                await watch.wait(at_most=2 * PATIENCE)
        await holds(lambda: rows.asked, "it has read the states")


async def test_a_closed_hub_ignores_settings_and_starts_again_with_the_next_watch(hub, redis):
    with hub.watching(uuid4()):
        await holds(lambda: redis.channels, "it has subscribed")
    tasks = list(hub._tasks)
    await hub.close()
    assert all(task.done() for task in tasks)
    with pytest.raises(ValueError, match="not in list"):
        forget(hub._wake_for_settings)
    with hub.watching(uuid4()):
        await holds(lambda: len(redis.channels) == 2, "it has subscribed again")


async def test_closing_a_hub_that_has_not_started_does_nothing(hub):
    await hub.close()
    assert hub._tasks == []


async def test_a_task_that_swallows_a_cancellation_is_cancelled_again(hub, redis):
    with hub.watching(uuid4()):
        await holds(lambda: redis.channels, "it has subscribed")
        await asyncio.sleep(0)
        redis.swallows_cancellations = 2
        tasks = list(hub._tasks)
        async with asyncio.timeout(PATIENCE):
            await hub.close()
    assert all(task.cancelled() for task in tasks)


# --- Watches ------------------------------------------------------------------------------------------------------


async def test_a_wait_ends_with_a_wake_up_or_its_timeout():
    watch = Watch()
    for _ in range(2):
        async with asyncio.timeout(PATIENCE):
            await watch.wait(at_most=0.01)
    watch.ring()
    watch.ring()
    async with asyncio.timeout(PATIENCE):
        await watch.wait(at_most=600)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await watch.wait(at_most=600)


async def test_the_timer_of_a_finished_wait_is_cancelled():
    watch = Watch()
    watch.ring()
    await watch.wait(at_most=0.01)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await watch.wait(at_most=600)


async def test_a_closed_watch_wakes_its_stream():
    watch = Watch()
    assert (watch.state, watch.is_closed) == (None, False)
    watch.close()
    assert watch.is_closed
    async with asyncio.timeout(PATIENCE):
        await watch.wait(at_most=600)
