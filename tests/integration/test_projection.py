"""The copies of sign-ups in Redis, the traffic counts beside them, and the wake-ups, on a real Redis."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Iterator
from math import inf
from uuid import UUID, uuid4

import msgspec
import pytest
from django.conf import settings
from django.utils import timezone
from redis.asyncio import Redis
from redis.asyncio.client import PubSub

from authsvc.lights import Status, TransactionState, Verdict
from authsvc.signups import projection as projection_module
from authsvc.signups.projection import CHANNEL, CONNECTIONS, AsyncProjection, Projection, decode_wake_up
from authsvc.signups.projection import projection as projection_of_process
from authsvc.signups.traffic_counts import COUNTS_TTL, LagSampler
from tests.waiting import PATIENCE, eventually_async

pytestmark = pytest.mark.needs("redis")

SERVICES = ["auth", "chat", "customer"]


def begun() -> TransactionState:
    return TransactionState.all_pending(uuid4(), started_at=timezone.now(), services=SERVICES)


def decide(state: TransactionState, *services: str) -> TransactionState:
    return state.decided([Verdict(service, Status.SUCCESS) for service in services], at=timezone.now())


def at_version(state: TransactionState, version: int) -> TransactionState:
    return msgspec.structs.replace(state, version=version)


@pytest.fixture
async def projection() -> AsyncIterator[AsyncProjection]:
    open_one = AsyncProjection()
    yield open_one
    await open_one.close()


@pytest.fixture
def synchronous() -> Iterator[Projection]:
    made = Projection()
    yield made
    made._redis.close()


@pytest.fixture
async def redis() -> AsyncIterator[Redis]:
    async with Redis.from_url(settings.REDIS_URL) as client:
        yield client


@pytest.fixture
def silent(settings) -> Iterator[None]:
    """A frozen Redis: it accepts connections and answers nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        settings.REDIS_URL = f"redis://127.0.0.1:{server.getsockname()[1]}/0"
        yield


async def next_message(subscription: PubSub) -> dict[str, object]:
    async with asyncio.timeout(10):
        while not (message := await subscription.get_message(timeout=10)):
            pass
        return message


# --- The copies ---------------------------------------------------------------------------------------------------


async def test_an_older_copy_never_replaces_a_newer_one(projection):
    state = begun()
    newer = decide(state, "auth")
    await projection.copy(newer)
    await projection.copy(state)
    assert await projection.read(state.transaction_id) == newer
    assert await projection.read(uuid4()) is None


@pytest.mark.parametrize(("held", "written", "stays"), [(9, 10, 10), (10, 9, 10), (99, 100, 100), (100, 20, 100)])
async def test_versions_are_compared_as_numbers(projection, held, written, stays):
    state = begun()
    await projection.copy(at_version(state, held))
    await projection.copy(at_version(state, written))
    assert (await projection.read(state.transaction_id)).version == stays


async def test_an_equal_version_is_written_only_once(projection):
    state = decide(begun(), "auth")
    await projection.copy(state)
    await projection.copy(at_version(decide(state, "chat"), state.version))
    assert await projection.read(state.transaction_id) == state


async def test_several_copies_are_written_at_once_each_with_its_version(projection, redis, synchronous):
    first, second = begun(), decide(begun(), "auth")
    await asyncio.to_thread(synchronous.write_and_wake, [first, second])
    assert [await projection.read(each.transaction_id) for each in (first, second)] == [first, second]
    versions = [await redis.hget(f"signup:{each.transaction_id}", "v") for each in (first, second)]
    assert versions == [str(first.version).encode(), str(second.version).encode()]


async def test_every_key_that_is_written_expires(projection, redis, settings, synchronous):
    settings.PROJECTION_TTL = 1234
    state = begun()
    writes = {
        f"signup:{state.transaction_id}": [
            (1234, lambda: projection.copy(state)),
            (1234, lambda: asyncio.to_thread(synchronous.write_and_wake, [state])),
        ],
        "traffic:*": [
            (COUNTS_TTL, lambda: projection.count({"begun": 1})),
            (COUNTS_TTL, lambda: asyncio.to_thread(LagSampler().sample, {"chat": 3})),
        ],
    }
    for name, ways in writes.items():
        for longest, write in ways:
            await redis.flushdb()
            await write()
            [key] = await redis.keys(name)
            assert longest - 60 < await redis.ttl(key) <= longest


async def test_counts_are_added_to_the_present_second(projection, redis, monkeypatch, synchronous):
    # One second, even if the clock moves on in the meantime.
    monkeypatch.setattr(projection_module, "present_key", lambda: "traffic:a-second")
    await redis.delete("traffic:a-second")
    await projection.count({"begun": 2, "verdict:chat:FAIL": 1})
    state = begun()
    await asyncio.to_thread(synchronous.write_and_wake, [state], counts={"begun": 3})
    assert await redis.hgetall("traffic:a-second") == {b"begun": b"5", b"verdict:chat:FAIL": b"1"}
    assert await projection.read(state.transaction_id) == state


async def test_counts_without_states_are_written_and_an_empty_write_sends_nothing(redis, synchronous, monkeypatch):
    monkeypatch.setattr(projection_module, "present_key", lambda: "traffic:another-second")
    await redis.delete("traffic:another-second")
    await asyncio.to_thread(synchronous.write_and_wake, [])
    assert not await redis.exists("traffic:another-second")
    await asyncio.to_thread(synchronous.write_and_wake, [], counts={"begun": 3})
    assert await redis.hgetall("traffic:another-second") == {b"begun": b"3"}


async def test_only_the_named_copies_are_forgotten(projection, synchronous):
    first, second, third = begun(), begun(), begun()
    for each in (first, second, third):
        await projection.copy(each)
    await asyncio.to_thread(synchronous.forget, [])
    await asyncio.to_thread(synchronous.forget, [first.transaction_id, third.transaction_id])
    copies = [await projection.read(each.transaction_id) for each in (first, second, third)]
    assert copies == [None, second, None]


async def test_a_forgotten_copy_does_not_come_back_with_a_late_answer(projection, redis, synchronous, settings):
    settings.TICKET_MAX_AGE, settings.PROJECTION_TTL = 5000, 60
    state = begun()
    await projection.copy(state)
    await asyncio.to_thread(synchronous.forget, [state.transaction_id])
    await asyncio.to_thread(synchronous.write_and_wake, [decide(state, "auth")])
    await projection.copy(decide(state, "auth"))
    assert await projection.read(state.transaction_id) is None
    # As long as a ticket may be valid.
    assert 4900 < await redis.ttl(f"signup:{state.transaction_id}") <= 5000


def test_a_frozen_redis_is_asked_only_once_to_forget(silent, caplog, synchronous):
    synchronous.forget([UUID(int=1)])
    synchronous._redis.pipeline = lambda **options: pytest.fail("Redis was asked")
    synchronous.forget([UUID(int=1)])
    [said] = [record.getMessage() for record in caplog.records if "Redis is unavailable" in record.getMessage()]
    assert said.startswith(AWAY)


async def test_hundreds_of_reads_at_once_share_few_connections(projection, redis, caplog):
    # A read waits half a second for its turn, to connect and for its answer, which is too short on a busy machine.
    pool = projection._redis.connection_pool
    pool.timeout = PATIENCE
    pool.connection_kwargs.update(socket_timeout=PATIENCE, socket_connect_timeout=PATIENCE)
    state = begun()
    await projection.copy(state)
    before = len(await redis.client_list())
    with caplog.at_level(logging.WARNING):
        copies = await asyncio.gather(*[projection.read(state.transaction_id) for _ in range(400)])
    # The connection of the first copy is one of them.
    assert len(await redis.client_list()) - before < CONNECTIONS
    assert copies == [state] * 400
    assert [record for record in caplog.records if record.name == projection_module.__name__] == []


# --- The wake-ups -------------------------------------------------------------------------------------------------


async def test_a_copy_wakes_its_watchers_with_its_state_and_a_count_wakes_nobody(projection, synchronous):
    first, second = begun(), decide(begun(), "auth")
    async with projection.subscription() as subscription:
        await subscription.subscribe(CHANNEL)
        assert (await next_message(subscription))["type"] == "subscribe"
        await projection.count({"begun": 1})
        await projection.copy(first)
        await asyncio.to_thread(synchronous.write_and_wake, [second, first])
        heard = [await next_message(subscription) for _ in range(2)]
    assert {message["channel"] for message in heard} == {b"signups"}
    assert [decode_wake_up(message["data"]) for message in heard] == [[first], [second, first]]


async def test_a_subscriber_stays_connected_through_silence_and_disconnects_with_its_block(projection, redis):
    before = len(await redis.client_list())
    async with projection.subscription() as subscription:
        await subscription.subscribe(CHANNEL)
        assert await next_message(subscription)
        [connection] = [subscription.connection]
        assert connection.socket_timeout is None
        assert connection.socket_connect_timeout == 0.5

    async def is_closed() -> bool:
        return len(await redis.client_list()) <= before

    await eventually_async(is_closed)


def test_a_process_has_one_projection():
    assert projection_of_process() is projection_of_process()
    assert isinstance(projection_of_process(), Projection)
    projection_of_process.cache_clear()


# --- While Redis is unavailable -----------------------------------------------------------------------------------

AWAY = "Redis is unavailable: states are read from the database, and traffic is not counted: Timeout"


async def test_a_frozen_redis_is_asked_only_once(silent, caplog):
    projection = AsyncProjection()
    async with asyncio.timeout(5):
        assert await projection.read(UUID(int=1)) is None
    projection._redis.hget = lambda *field: pytest.fail("Redis was asked")
    assert await projection.read(UUID(int=1)) is None
    await projection.copy(begun())
    await projection.close()
    [said] = [record.getMessage() for record in caplog.records if "Redis is unavailable" in record.getMessage()]
    assert said.startswith(AWAY)


def test_a_frozen_redis_is_asked_only_once_by_the_synchronous_projection(silent, caplog, synchronous):
    synchronous.write_and_wake([begun()])
    synchronous._script = lambda **script: pytest.fail("Redis was asked")
    synchronous.write_and_wake([begun()])
    [said] = [record.getMessage() for record in caplog.records if "Redis is unavailable" in record.getMessage()]
    assert said.startswith(AWAY)


async def test_after_an_answer_redis_counts_as_recovered(projection, caplog, synchronous):
    caplog.set_level("INFO")
    for each in (projection, synchronous):
        each._breaker.note_failure(OSError("gone"))
        each._breaker._failed_at = -inf
    await projection.copy(begun())
    await asyncio.to_thread(synchronous.write_and_wake, [begun()])
    assert [record.getMessage() for record in caplog.records].count("Redis is back") == 2
