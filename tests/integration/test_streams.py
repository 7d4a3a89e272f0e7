"""Held streams, their wake-ups and the projection, on a real Redis."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from uuid import UUID, uuid4

import pytest
from django.utils import timezone

from authsvc.api.hub import StreamHub, Watch
from authsvc.lights import Status, TransactionState, Verdict
from authsvc.signups.projection import AsyncProjection, Projection
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
    """The state in the database, and the number of times that it was read."""

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
    # Long, so that no heartbeat can hide a lost wake-up.
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


async def test_a_changed_live_setting_wakes_watchers(hub):
    with hub.watching(uuid4()) as watch:
        waiting = asyncio.create_task(watch.wait(at_most=2 * PATIENCE))
        await asyncio.sleep(0)
        async with asyncio.timeout(PATIENCE):
            await asyncio.to_thread(take, {"SIGNUP_DEADLINE": 7.0})
            await waiting
    take({})


async def test_a_state_written_by_another_process_reaches_its_watchers(hub):
    mine, other = begun(), begun()
    with hub.watching(mine.transaction_id) as watch, hub.watching(mine.transaction_id) as second:
        await subscribed(hub)
        answered = decide(mine, "chat")
        Projection().write_and_wake([decide(other, "chat"), answered])
        await has(watch, answered)
        await has(second, answered)
    assert hub._watches == {}


async def test_while_redis_is_down_the_database_is_read_every_second_and_wake_ups_resume_after_recovery(settings):
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
            # Once at the reconnect, and perhaps once for the second that had just passed.
            assert rows.readings <= readings + 2
        await hub.close()
        await projection.close()
