"""The watches of one process, without a Redis: the states that a watch accepts, and that all watches are read."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack
from uuid import UUID, uuid4

import msgspec
import pytest
from django.utils import timezone
from pytest_django.fixtures import Settings

from authsvc.api.hub import READ_CHUNK, StreamHub, Watch
from authsvc.lights import Status, TransactionState, Verdict
from authsvc.signups.projection import AsyncProjection
from tests.servers.process import free_port
from tests.waiting import PATIENCE, eventually_async


def begun(signup_id: UUID) -> TransactionState:
    return TransactionState.all_pending(signup_id, started_at=timezone.now(), services=["auth", "chat"])


def decide(state: TransactionState, service: str) -> TransactionState:
    return state.decided([Verdict(service, Status.SUCCESS)], at=timezone.now())


class Rows:
    """A database with every sign-up. It records the number of IDs of each query."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    async def read(self, signup_ids: Sequence[UUID]) -> dict[UUID, TransactionState]:
        self.asked.append(len(signup_ids))
        return {signup_id: begun(signup_id) for signup_id in signup_ids}


@pytest.fixture
def rows() -> Rows:
    return Rows()


@pytest.fixture
async def hub(settings: Settings, rows: Rows) -> AsyncIterator[StreamHub]:
    """A hub whose Redis is unavailable."""
    settings.REDIS_URL = f"redis://127.0.0.1:{free_port()}/0"
    settings.STREAM_HEARTBEAT = 600
    projection = AsyncProjection()
    running = StreamHub(projection, rows.read)
    yield running
    await running.close()
    await projection.close()


@pytest.fixture
def states() -> Iterator[TransactionState]:
    first = begun(uuid4())
    return iter((first, decide(first, "chat")))


@pytest.mark.parametrize("held", [1, READ_CHUNK, READ_CHUNK + 1, 2 * READ_CHUNK + 1])
async def test_while_redis_is_down_every_held_stream_is_read_however_many_there_are(
    hub: StreamHub, rows: Rows, held: int
) -> None:
    with ExitStack() as stack:
        watches = [stack.enter_context(hub.watching(uuid4())) for _ in range(held)]

        async def are_all_read() -> bool:
            return all(watch.state is not None for watch in watches)

        await eventually_async(are_all_read, what="each watch has the state of its row")
    assert max(rows.asked) == min(held, READ_CHUNK)


async def test_a_database_that_fails_is_read_again(
    hub: StreamHub, rows: Rows, caplog: pytest.LogCaptureFixture
) -> None:
    read, failures = rows.read, [RuntimeError("away")]

    async def failing(signup_ids: Sequence[UUID]) -> dict[UUID, TransactionState]:
        if failures:
            raise failures.pop()
        return await read(signup_ids)

    hub._read_states = failing
    with hub.watching(uuid4()) as watch:
        async with asyncio.timeout(PATIENCE):
            await watch.wait(at_most=PATIENCE)
        assert watch.state is not None
    assert "could not reread the states of held streams" in caplog.text


async def has_rung(watch: Watch) -> bool:
    """Whether the bell has rung since the last call."""
    if rang := watch._bell.done():
        await watch.wait(at_most=PATIENCE)
    return rang


async def test_a_watch_adopts_only_newer_states_and_rings_only_for_them(states: Iterator[TransactionState]) -> None:
    watch, first, second = Watch(), *states
    watch.offer(first)
    assert (watch.state, await has_rung(watch)) == (first, True)
    watch.offer(first)
    assert not await has_rung(watch)
    watch.offer(second)
    assert (watch.state, await has_rung(watch)) == (second, True)
    watch.offer(first)
    assert (watch.state, await has_rung(watch)) == (second, False)


async def test_a_watch_adopts_stalled_and_never_reverts_it(
    states: Iterator[TransactionState],
) -> None:
    watch, state = Watch(), next(states)
    stalled = msgspec.structs.replace(state, is_stalled=True)
    for offered, held in ((state, state), (stalled, stalled), (state, stalled)):
        watch.offer(offered)
        assert watch.state == held


async def test_a_draining_hub_ends_the_streams_that_are_held_and_those_to_come(hub: StreamHub) -> None:
    with hub.watching(uuid4()) as held:
        hub.drain()
        with hub.watching(uuid4()) as late:
            assert held.is_closed
            assert late.is_closed


async def test_a_watch_that_ends_leaves_the_others_of_its_sign_up(hub: StreamHub) -> None:
    signup_id = uuid4()
    with hub.watching(signup_id) as stays:
        with hub.watching(signup_id):
            pass
        state = decide(begun(signup_id), "chat")
        hub.deliver([state])
        assert stays.state == state
    hub.deliver([state])
    assert not hub._watches
