"""Held streams, their wake-ups and the projection, on a real Redis."""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from uuid import UUID, uuid4

import msgspec
import pytest
from django.conf import settings
from django.utils import timezone
from redis.asyncio import Redis

from authsvc.api.hub import StreamHub, Watch
from authsvc.lights import Status, TransactionState, Verdict
from authsvc.signups import projection as projection_module
from authsvc.signups.projection import AsyncProjection, Projection
from authsvc.signups.traffic_counts import KEPT, LagSampler
from livesettings.values import take
from tests.servers import ValkeyServer
from tests.waiting import PATIENCE, eventually_async

pytestmark = pytest.mark.needs("redis")

SERVICES = ["auth", "chat", "customer"]


def begun() -> TransactionState:
    return TransactionState.all_pending(uuid4(), started_at=timezone.now(), services=SERVICES)


def decide(state: TransactionState, *services: str) -> TransactionState:
    return state.decided([Verdict(service, Status.SUCCESS) for service in services], at=timezone.now())


class Rows:
    """What the database holds, and how often it was read."""

    def __init__(self, *states: TransactionState) -> None:
        self.states = {state.transaction_id: state for state in states}
        self.readings = 0

    async def read(self, signup_ids: Sequence[UUID]) -> dict[UUID, TransactionState]:
        self.readings += 1
        return {signup_id: self.states[signup_id] for signup_id in signup_ids if signup_id in self.states}


@pytest.fixture
async def projection() -> AsyncIterator[AsyncProjection]:
    open_one = AsyncProjection()
    yield open_one
    await open_one.close()


@pytest.fixture
async def hub(settings, projection) -> AsyncIterator[StreamHub]:
    # So that no heartbeat can hide a wake-up that got lost.
    settings.STREAM_HEARTBEAT = 600
    running = StreamHub(projection, Rows().read)
    yield running
    await running.close()


async def has(watch: Watch, state: TransactionState) -> None:
    async def held() -> bool:
        return watch.state == state

    await eventually_async(held, what=f"version {state.version} is there")


async def subscribed(hub: StreamHub) -> None:
    async def is_subscribed() -> bool:
        return hub._is_subscribed is True

    await eventually_async(is_subscribed)


async def test_another_value_of_a_live_setting_wakes_who_watches(hub):
    with hub.watching(uuid4()) as watch:
        waiting = asyncio.create_task(watch.wait(at_most=2 * PATIENCE))
        await asyncio.sleep(0)
        async with asyncio.timeout(PATIENCE):
            await asyncio.to_thread(take, {"SIGNUP_DEADLINE": 7.0})
            await waiting
    take({})


async def test_what_another_process_writes_reaches_who_watches_it(hub):
    mine, other = begun(), begun()
    with hub.watching(mine.transaction_id) as watch, hub.watching(mine.transaction_id) as second:
        await subscribed(hub)
        answered = decide(mine, "chat")
        Projection().write_and_wake([decide(other, "chat"), answered])
        await has(watch, answered)
        await has(second, answered)
    assert hub._watches == {}


async def test_an_older_copy_never_replaces_a_newer_one(projection):
    state = begun()
    newer = decide(state, "auth")
    await projection.copy(newer)
    await projection.copy(state)
    assert await projection.read(state.transaction_id) == newer
    assert await projection.read(uuid4()) is None


async def test_hundreds_of_readings_at_once_share_few_connections(projection, caplog):
    # A reading waits for its turn for half a second, which is long for a machine that has nothing else to do.
    projection._redis.connection_pool.timeout = PATIENCE
    state = begun()
    await projection.copy(state)
    with caplog.at_level(logging.WARNING):
        copies = await asyncio.gather(*[projection.read(state.transaction_id) for _ in range(400)])
    assert copies == [state] * 400
    assert [record for record in caplog.records if record.name == projection_module.__name__] == []


async def test_while_redis_is_away_the_database_is_read_every_second_and_after_it_the_wake_ups_count(settings):
    settings.STREAM_HEARTBEAT = 600
    with ValkeyServer() as valkey:
        settings.REDIS_URL = valkey.env["REDIS_URL"]
        state = begun()
        rows = Rows(state)
        projection = AsyncProjection()
        hub = StreamHub(projection, rows.read)
        with hub.watching(state.transaction_id) as watch:
            await subscribed(hub)
            await has(watch, state)
            await asyncio.to_thread(valkey.kill)
            answered = rows.states[state.transaction_id] = decide(state, "chat")
            await has(watch, answered)
            await asyncio.to_thread(valkey.start)
            await subscribed(hub)
            readings = rows.readings
            complete = decide(answered, "customer")
            await projection.copy(complete)
            await has(watch, complete)
            # At the reconnect, and perhaps for the second that was just over.
            assert rows.readings <= readings + 2
        await hub.close()
        await projection.close()


# --- The copies -------------------------------------------------------------------------------------------------


def at_version(state: TransactionState, version: int) -> TransactionState:
    return msgspec.structs.replace(state, version=version)


@pytest.fixture
async def redis() -> AsyncIterator[Redis]:
    async with Redis.from_url(settings.REDIS_URL) as client:
        yield client


@pytest.mark.parametrize(("held", "written", "stays"), [(9, 10, 10), (10, 9, 10), (99, 100, 100), (100, 20, 100)])
async def test_versions_are_numbers(projection, held, written, stays):
    state = begun()
    await projection.copy(at_version(state, held))
    await projection.copy(at_version(state, written))
    assert (await projection.read(state.transaction_id)).version == stays


async def test_every_key_that_is_written_ends_by_itself(projection, redis, settings):
    settings.PROJECTION_TTL = 1234
    state = begun()
    writes = {
        f"signup:{state.transaction_id}": [
            (1234, lambda: projection.copy(state)),
            (1234, lambda: asyncio.to_thread(Projection().write_and_wake, [state])),
        ],
        "traffic:*": [
            (KEPT, lambda: projection.count({"begun": 1})),
            (KEPT, lambda: asyncio.to_thread(LagSampler().sample, {"chat": 3})),
        ],
    }
    for name, ways in writes.items():
        for longest, write in ways:
            await redis.flushdb()
            await write()
            [key] = await redis.keys(name)
            assert longest - 60 < await redis.ttl(key) <= longest


async def test_what_is_counted_is_added_to_the_present_second(projection, redis, monkeypatch):
    # One second, whatever the clock does meanwhile.
    monkeypatch.setattr(projection_module, "present_key", lambda: "traffic:a-second")
    await redis.delete("traffic:a-second")
    await projection.count({"begun": 2, "verdict:chat:FAIL": 1})
    state = begun()
    await asyncio.to_thread(Projection().write_and_wake, [state], counts={"begun": 3})
    assert await redis.hgetall("traffic:a-second") == {b"begun": b"5", b"verdict:chat:FAIL": b"1"}
    assert await projection.read(state.transaction_id) == state


async def test_to_count_wakes_nobody(projection, hub):
    state = begun()
    with hub.watching(state.transaction_id) as watch:
        await subscribed(hub)
        heard = []
        hub.deliver = heard.append
        await projection.count({"begun": 1})
        await projection.copy(state)

        async def has_heard() -> bool:
            return bool(heard)

        await eventually_async(has_heard, what="the wake-up has come")
        assert heard == [[state]]
        assert watch.state is None
