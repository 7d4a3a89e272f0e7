"""One relay, with a fake gateway, and with pauses that only move a fake clock."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import aiohttp
import pytest
from pytest_django.fixtures import Settings

from signup_sync.front import stream_relay
from signup_sync.front.gateway import GatewayError
from signup_sync.front.states import LightsState, read_state
from signup_sync.front.stream_relay import FIRST_PAUSE, LONGEST_PAUSE, StreamRelay, reconnect_pause
from tests.unit.fakes import CALLS_MAX, Clock
from tests.waiting import PATIENCE

SIGNUP_ID = uuid4()
LOST = aiohttp.ClientPayloadError("lost")


def text(version: int, *, auth: str = "SUCCESS", complete: bool = False, awaiting: str | None = None) -> str:
    services = {"auth": {"status": auth}, "chat": {"status": "SUCCESS" if complete else "PENDING"}}
    state = {"signupId": str(SIGNUP_ID), "version": version, "complete": complete, "services": services}
    return json.dumps(state | ({"awaiting": awaiting} if awaiting else {}))


def status(version: int, **fields: Any) -> str:
    return f"event: status\ndata: {text(version, **fields)}\n\n"


COMPLETE = status(9, complete=True)
HEARTBEAT = ": still here\n\n"


class Stream:
    """A response: these events, followed by an error, if given."""

    def __init__(self, *events: str, error: Exception | None = None) -> None:
        self.content = self._lines("".join(events), error)
        self.is_closed = self.is_left = False

    async def _lines(self, events: str, error: Exception | None) -> AsyncIterator[bytes]:
        for line in events.splitlines(keepends=True):
            yield line.encode()
        if error:
            raise error

    def close(self) -> None:
        self.is_closed = True

    async def __aenter__(self) -> "Stream":
        return self

    async def __aexit__(self, *_: object) -> None:
        self.is_left = True


class Gateway:
    """Opens these streams in turn; None is the end of the sign-up, and an exception is raised."""

    def __init__(self, *streams: Any, state: LightsState | None = None) -> None:
        self.streams = list(streams)
        self.state = state
        self.seen: list[int] = []
        self.read: list[UUID] = []

    async def open_events(self, signup_id: UUID, *, seen: int) -> Any:
        assert signup_id == SIGNUP_ID
        self.seen.append(seen)
        stream = self.streams.pop(0)
        if isinstance(stream, Exception):
            raise stream
        return stream

    async def read_state(self, signup_id: UUID) -> LightsState | None:
        self.read.append(signup_id)
        return self.state


class Relaying:
    """A relay, the states that it has passed on, and its pauses."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *streams: Any, first: Stream | None = None) -> None:
        self.clock, self.gateway = Clock(), Gateway(*streams)
        self.told: list[tuple[int, str | None]] = []
        self.pauses: list[float] = []
        self.failures: list[int] = []
        self.is_watched = True
        self.asked: set[UUID] = set()
        monkeypatch.setattr(stream_relay, "time", self.clock)
        monkeypatch.setattr(stream_relay, "reconnect_pause", self.reconnect_pause)
        monkeypatch.setattr(
            stream_relay, "asyncio",
            SimpleNamespace(Event=asyncio.Event, timeout_at=asyncio.timeout_at, sleep=self.sleep),
        )  # fmt: skip
        self.relay = StreamRelay(SIGNUP_ID, self.gateway, first, tell=self.tell, is_watched=self.watches)

    def tell(self, relay: StreamRelay) -> None:
        assert relay is self.relay
        self.told.append((relay._version, relay.slowness))

    def watches(self, signup_id: UUID) -> bool:
        self.asked.add(signup_id)
        return self.is_watched

    def reconnect_pause(self, failures: int) -> float:
        self.failures.append(failures)
        assert len(self.failures) < CALLS_MAX
        return 0.5

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.clock.now += seconds

    async def run(self) -> "Relaying":
        async with asyncio.timeout(PATIENCE):
            await self.relay.run()
        return self

    @property
    def versions(self) -> list[int]:
        return [version for version, _ in self.told]


@pytest.fixture
def relaying(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> Any:
    settings.STREAM_MAX_AGE = 600
    return lambda *streams, **options: Relaying(monkeypatch, *streams, **options)


# --- Reading ------------------------------------------------------------------------------------------------------


async def test_a_relay_passes_on_each_newer_state_and_ends_with_the_sign_up(relaying: Any) -> None:
    first = Stream(status(1), status(2), status(2), status(1), status(5), COMPLETE)
    done = await relaying(first=first).run()
    assert done.told == [(1, None), (2, None), (5, None), (9, None)]
    assert done.relay.signup_id == SIGNUP_ID
    assert done.relay.state == read_state(text(9, complete=True))
    assert (done.gateway.seen, done.pauses) == ([], [])
    # It reads to the end, so that the connection serves the next sign-up.
    assert (first.is_left, first.is_closed) == (True, False)


async def test_a_relay_without_a_stream_opens_one(relaying: Any) -> None:
    done = await relaying(Stream(COMPLETE)).run()
    assert (done.gateway.seen, done.versions) == ([0], [9])


@pytest.mark.parametrize(
    ("events", "told"),
    [
        (["delayed"], ["delayed"]),
        (["stalled"], ["stalled"]),
        (["delayed", "delayed"], ["delayed", "delayed"]),
        (["delayed", "stalled"], ["delayed", "stalled"]),
        (["stalled", "delayed"], ["stalled", "stalled"]),
        (["something else", "delayed"], ["delayed"]),
    ],
)
async def test_delayed_and_stalled_are_passed_on_and_stalled_is_permanent(
    relaying: Any, events: Iterable[str], told: list[str]
) -> None:
    done = await relaying(Stream(status(1), *(f"event: {kind}\ndata: {{}}\n\n" for kind in events), COMPLETE)).run()
    assert done.told == [(1, None), *((1, slowness) for slowness in told), (9, told[-1])]


async def test_a_heartbeat_repeats_the_newest_state(relaying: Any) -> None:
    done = await relaying(Stream(status(1), HEARTBEAT, HEARTBEAT, COMPLETE)).run()
    assert done.versions == [1, 1, 1, 9]


async def test_if_there_are_no_more_events_the_state_says_that_the_sign_up_is_complete(relaying: Any) -> None:
    running = relaying(None)
    running.gateway.state = read_state(text(9, complete=True))
    await running.run()
    assert (running.gateway.read, running.versions) == ([SIGNUP_ID], [9])


async def test_a_state_that_auth_does_not_have_yet_is_asked_for_again(relaying: Any) -> None:
    done = await relaying(None, Stream(COMPLETE)).run()
    assert (done.versions, done.failures) == ([9], [1])


# --- Reconnecting -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [None, LOST, TimeoutError(), ValueError("nonsense")])
async def test_a_lost_stream_is_resumed_after_the_last_event(relaying: Any, error: Exception | None) -> None:
    done = await relaying(Stream(COMPLETE), first=Stream(status(1), status(4), error=error)).run()
    assert done.gateway.seen == [4]
    assert done.versions == [1, 4, 9]
    assert (done.failures, done.pauses) == ([0], [0.5])


async def test_failures_count_until_there_is_something_new(relaying: Any) -> None:
    away = aiohttp.ClientConnectionError("away")
    streams = [away, Stream(HEARTBEAT), Stream(status(1)), Stream(status(1)), Stream(status(2)), away, Stream(COMPLETE)]
    done = await relaying(*streams).run()
    assert done.failures == [1, 2, 0, 1, 0, 1]


@pytest.mark.parametrize(("retry_after", "pause"), [(None, 0.5), (0, 0.5), (1, 1), (7, 7)])
async def test_the_pause_that_a_gateway_asks_for_is_honoured_once(
    relaying: Any, retry_after: int | None, pause: float
) -> None:
    busy = GatewayError(503, "busy", retry_after=retry_after)
    done = await relaying(busy, LOST, Stream(COMPLETE)).run()
    assert done.pauses == [pause, 0.5]


async def test_a_relay_that_auth_refuses_is_given_up(relaying: Any, caplog: pytest.LogCaptureFixture) -> None:
    done = await relaying(GatewayError(404, "unknown"), Stream(COMPLETE)).run()
    assert done.told == []
    assert f"sign-up {SIGNUP_ID} is no longer relayed: 404: unknown" in caplog.text
    async with asyncio.timeout(PATIENCE):
        assert await done.relay.auth_answer(until=asyncio.get_running_loop().time() + 2 * PATIENCE) is None


async def test_an_unexpected_error_ends_the_relay_and_the_wait_for_its_answer(relaying: Any) -> None:
    running = relaying(KeyError("a bug"))
    with pytest.raises(KeyError):
        await running.run()
    async with asyncio.timeout(PATIENCE):
        assert await running.relay.auth_answer(until=asyncio.get_running_loop().time() + 2 * PATIENCE) is None


@pytest.mark.parametrize(("age", "streams"), [(3, 6), (4, 8)])
async def test_a_relay_ends_at_its_maximum_age_and_leaves_the_sign_up_to_another_process(
    relaying: Any, settings: Settings, age: int, streams: int
) -> None:
    settings.STREAM_MAX_AGE = age
    done = await relaying(*(Stream(HEARTBEAT) for _ in range(10))).run()
    assert len(done.gateway.seen) == streams


# --- Auth's answer ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "is_answered"),
    [
        (status(1, auth="PENDING"), False), (status(2), True), (status(2, auth="FAIL"), True),
        (status(1, auth="PENDING", awaiting="confirmation"), True),
    ],
)  # fmt: skip
async def test_auths_answer_is_its_verdict_or_that_it_waits_for_a_confirmation(
    relaying: Any, event: str, is_answered: bool
) -> None:
    running = relaying()
    for each in (line for line in event.splitlines() if line.startswith("data: ")):
        running.relay._take(read_state(each.removeprefix("data: ")))
    assert running.relay._answered_or_over.is_set() is is_answered
    until = asyncio.get_running_loop().time() + (2 * PATIENCE if is_answered else 0.02)
    async with asyncio.timeout(PATIENCE):
        assert await running.relay.auth_answer(until=until) == running.relay.state is not None


async def test_waiting_beyond_the_deadline_returns_the_last_known_state(relaying: Any) -> None:
    assert await relaying().relay.auth_answer(until=asyncio.get_running_loop().time() + 0.02) is None


# --- Waiting for a confirmation -----------------------------------------------------------------------------------

AWAITING = status(1, auth="PENDING", awaiting="confirmation")


async def test_a_sign_up_that_waits_for_its_confirmation_is_left_when_nobody_watches_it(relaying: Any) -> None:
    first = Stream(AWAITING, COMPLETE)
    running = relaying(first=first)
    running.is_watched = False
    await running.run()
    assert running.versions == [1]
    assert first.is_closed, "reading on would take hours"
    assert first.is_left
    assert running.asked == {SIGNUP_ID}
    assert running.pauses == []


async def test_an_unconfirmed_sign_up_is_relayed_as_long_as_somebody_watches_it(relaying: Any) -> None:
    running = relaying(first=Stream(AWAITING, HEARTBEAT, COMPLETE))
    await running.run()
    assert running.versions == [1, 1, 9]


async def test_any_other_sign_up_is_relayed_whether_watched_or_not(relaying: Any) -> None:
    running = relaying(first=Stream(status(1), COMPLETE))
    running.is_watched = False
    await running.run()
    assert running.versions == [1, 9]


# --- Pauses -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("failures", "most"),
    [(0, FIRST_PAUSE), (1, 2 * FIRST_PAUSE), (5, 8.0), (6, LONGEST_PAUSE), (10_000, LONGEST_PAUSE)],
)
def test_pauses_double_and_spread_over_their_upper_half(
    monkeypatch: pytest.MonkeyPatch, failures: int, most: float
) -> None:
    monkeypatch.setattr(stream_relay, "uniform", lambda least, most: least)
    assert reconnect_pause(failures) == most / 2
    monkeypatch.setattr(stream_relay, "uniform", lambda least, most: most)
    assert reconnect_pause(failures) == most
