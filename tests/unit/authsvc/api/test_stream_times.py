"""The timing of a stream's events, second by second: the clock moves only while the stream waits."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from uuid import UUID

import msgspec
import pytest

from authsvc.api import sse, streams
from authsvc.api.hub import Watch
from authsvc.api.streams import after_first, follow
from authsvc.lights import Status, TransactionState, Verdict

SERVICES = ["auth", "chat", "customer"]
BEGUN = datetime(2026, 3, 1, 12, tzinfo=UTC)
# The value of the monotonic clock at BEGUN.
START = 1000.0


class Clock:
    def __init__(self) -> None:
        self.passed = 0.0

    def monotonic(self) -> float:
        return START + self.passed

    def now(self) -> datetime:
        return BEGUN + timedelta(seconds=self.passed)


class Waiting(Watch):
    """Advances the clock by the time waited for, or less if an event is due earlier."""

    def __init__(self, clock: Clock, *due: tuple[float, Callable[["Waiting"], None]]) -> None:
        super().__init__()
        self._clock, self._due = clock, list(due)
        self.waits: list[float] = []

    async def wait(self, *, at_most: float) -> None:
        self.waits.append(at_most)
        end = self._clock.passed + at_most
        if self._due and self._due[0][0] <= end:
            end, act = self._due.pop(0)
            act(self)
        self._clock.passed = end


@pytest.fixture
def clock(monkeypatch, settings) -> Clock:
    settings.STREAM_HEARTBEAT, settings.SIGNUP_DEADLINE, settings.STREAM_MAX_AGE = 15, 25, 50
    made = Clock()
    monkeypatch.setattr(streams, "time", SimpleNamespace(monotonic=made.monotonic))
    monkeypatch.setattr(streams, "timezone", SimpleNamespace(now=made.now))
    return made


@pytest.fixture
def begun() -> TransactionState:
    return TransactionState.all_pending(UUID(int=7), started_at=BEGUN, services=SERVICES)


def decide(state: TransactionState, *services: str) -> TransactionState:
    return state.decided([Verdict(service, Status.SUCCESS) for service in services], at=BEGUN)


async def sent(clock: Clock, watch: Watch, *states: TransactionState, **options: object) -> list[tuple[float, bytes]]:
    """Return each text with the second at which it was sent."""
    return [(clock.passed, text) async for text in follow(watch, states, **{"seen": 0, **options})]


async def test_heartbeats_the_delay_and_the_end_come_at_their_seconds(clock, begun):
    watch = Waiting(clock)
    assert await sent(clock, watch, begun) == [
        (0, sse.RETRY + sse.status_event(begun, seen=0)),
        (15, sse.HEARTBEAT),
        (25, sse.DELAYED),
        (30, sse.HEARTBEAT),
        (45, sse.HEARTBEAT),
    ]
    assert watch.waits == [15, 10, 5, 15, 5]


async def test_a_deadline_and_a_heartbeat_of_the_same_second_are_one_text(clock, begun, settings):
    settings.SIGNUP_DEADLINE = 15
    assert (await sent(clock, Waiting(clock), begun))[1] == (15, sse.DELAYED + sse.HEARTBEAT)


async def test_waits_may_be_fractions_of_a_second(clock, begun, settings):
    settings.STREAM_HEARTBEAT, settings.SIGNUP_DEADLINE, settings.STREAM_MAX_AGE = 0.25, 0.5, 0.75
    watch = Waiting(clock)
    assert [second for second, _ in await sent(clock, watch, begun)] == [0, 0.25, 0.5]
    assert watch.waits == [0.25] * 3


async def test_a_change_postpones_the_heartbeat(clock, begun):
    judged = decide(begun, "auth")
    watch = Waiting(clock, (10, lambda it: it.offer(judged)))
    texts = await sent(clock, watch, begun)
    assert texts[1:4] == [
        (10, sse.status_event(judged, seen=1)),
        (25, sse.DELAYED + sse.HEARTBEAT),
        (40, sse.HEARTBEAT),
    ]


async def test_the_end_of_all_lights_ends_the_stream(clock, begun):
    complete = decide(begun, *SERVICES)
    watch = Waiting(clock, (10, lambda it: it.offer(complete)))
    assert await sent(clock, watch, begun, with_took=True) == [
        (0, sse.RETRY + sse.status_event(begun, seen=0, with_took=True)),
        (10, sse.status_event(complete, seen=1, with_took=True)),
    ]


async def test_states_that_the_reader_has_not_seen_come_first_each_after_the_one_before(clock, begun):
    second = decide(begun, "auth")
    third = decide(second, "chat")
    complete = decide(third, "customer")
    [(_, text)] = await sent(clock, Waiting(clock), begun, second, third, complete, with_took=True)
    assert text == sse.RETRY + b"".join(
        sse.status_event(state, seen=seen, with_took=True)
        for seen, state in enumerate([begun, second, third, complete])
    )


async def test_changes_that_the_reader_has_seen_are_not_sent_again(clock, begun):
    judged = decide(begun, "auth")
    assert (await sent(clock, Waiting(clock), judged, seen=2))[0] == (0, sse.RETRY)
    clock.passed = 0
    assert (await sent(clock, Waiting(clock), judged, seen=1))[0][1] == sse.RETRY + sse.status_event(judged, seen=1)


async def test_an_older_state_is_ignored_and_a_stalled_one_of_the_same_version_is_not(clock, begun):
    judged = decide(begun, "auth")
    stalled = msgspec.structs.replace(judged, is_stalled=True)
    watch = Waiting(clock, (5, lambda it: it.offer(begun)), (10, lambda it: it.offer(stalled)))
    texts = await sent(clock, watch, judged, seen=2)
    assert texts[:3] == [(0, sse.RETRY), (10, sse.STALLED), (15, sse.HEARTBEAT)]
    assert [text for _, text in texts].count(sse.STALLED) == 1


async def test_an_unconfirmed_sign_up_is_not_delayed_and_its_time_runs_from_the_confirmation(clock, begun):
    unconfirmed = msgspec.structs.replace(begun, is_unconfirmed=True)
    confirmed = decide(msgspec.structs.replace(begun, started_at=BEGUN + timedelta(seconds=20)), "auth")
    watch = Waiting(clock, (20, lambda it: it.offer(confirmed)))
    texts = await sent(clock, watch, unconfirmed)
    assert [second for second, text in texts if text == sse.DELAYED] == [45]
    assert texts[1:3] == [(15, sse.HEARTBEAT), (20, sse.status_event(confirmed, seen=1))]


async def test_an_unconfirmed_sign_up_waits_for_heartbeats_only(clock, begun):
    watch = Waiting(clock)
    texts = await sent(clock, watch, msgspec.structs.replace(begun, is_unconfirmed=True))
    assert [second for second, _ in texts] == [0, 15, 30, 45]
    assert watch.waits == [15, 15, 15, 5]


async def test_the_deadline_of_an_older_sign_up_has_partly_passed(clock, begun):
    old = msgspec.structs.replace(begun, started_at=BEGUN - timedelta(seconds=20))
    watch = Waiting(clock)
    assert (await sent(clock, watch, old))[1] == (5, sse.DELAYED)
    assert watch.waits[0] == 5


async def test_a_sign_up_that_begins_in_the_future_has_begun_now(clock, begun):
    ahead = msgspec.structs.replace(begun, started_at=BEGUN + timedelta(days=1))
    assert (25, sse.DELAYED) in await sent(clock, Waiting(clock), ahead)


async def test_a_change_leaves_the_deadline_of_a_confirmed_sign_up_where_it_is(clock, begun):
    ahead = msgspec.structs.replace(begun, started_at=BEGUN + timedelta(days=1))
    watch = Waiting(clock, (10, lambda it: it.offer(decide(ahead, "auth"))))
    assert (25, sse.DELAYED + sse.HEARTBEAT) in await sent(clock, watch, ahead)


async def test_a_late_reader_gets_state_stall_and_delay_in_one_text(clock, begun):
    old = msgspec.structs.replace(begun, started_at=BEGUN - timedelta(days=1), is_stalled=True)
    first = (await sent(clock, Waiting(clock), old))[0]
    assert first == (0, sse.RETRY + sse.status_event(old, seen=0) + sse.STALLED + sse.DELAYED)


async def test_a_stream_ends_in_time_even_before_the_deadline(clock, begun, settings):
    settings.SIGNUP_DEADLINE = 100
    settings.STREAM_MAX_AGE = 20
    watch = Waiting(clock)
    await sent(clock, watch, begun)
    assert watch.waits == [15, 5]


async def test_a_closed_watch_ends_the_stream_with_what_is_ready(clock, begun):
    closed = Watch()
    closed.close()
    second = decide(begun, "auth")
    assert await sent(clock, closed, begun, second) == [(0, sse.RETRY + sse.status_event(begun, seen=0))]
    later = Waiting(clock, (10, lambda it: it.close()))
    assert [second for second, _ in await sent(clock, later, begun)] == [0]


async def test_the_first_text_is_passed_before_the_rest_and_then_the_call_is_made():
    order = []

    async def texts():
        for text in (b"first", b"second", b"third"):
            yield text

    async for text in after_first(texts(), lambda: order.append("then")):
        order.append(text)
    assert order == [b"first", "then", b"second", b"third"]


async def test_without_any_text_the_call_is_made_after_an_empty_one():
    async def texts():
        return
        yield

    called = []
    assert [text async for text in after_first(texts(), lambda: called.append(1))] == [b""]
    assert called == [1]
