"""The relay pool's rules, one by one: leases, takeovers, news, and its end. Fakes replace Redis, the channel layer and
auth; test_relay_pool.py has real ones."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from pytest_django.fixtures import Settings
from redis.exceptions import RedisError
from structlog.contextvars import get_contextvars

from signup_sync.front import relay_pool
from signup_sync.front.gateway import GatewayError, SubmittedUser
from signup_sync.front.relay_pool import (
    LEASE_SECONDS,
    LEASED_AFTER,
    POSTS_MAX,
    TAKEN_OVER_AFTER,
    TEND_SECONDS,
    RelayPool,
    group_of,
    relays,
)
from tests.unit.fakes import Clock
from tests.waiting import PATIENCE, eventually_async

USER = SubmittedUser(user_id="kim", user_name="Kim", email="kim@example.org", password="four unlikely w0rds")
ONE, TWO, THREE = (UUID(int=number) for number in (1, 2, 3))


class Pipeline:
    """Records the commands of a round trip, and answers a SET with whether its key is free."""

    def __init__(self, redis: "FakeRedis") -> None:
        self._redis = redis
        self._commands: list[tuple[Any, ...]] = []

    async def __aenter__(self) -> "Pipeline":
        return self

    async def __aexit__(self, *_: object) -> None:
        """There is nothing to release."""

    def set(self, key: str, value: int, *, ex: int, nx: bool) -> None:
        self._commands.append(("set", key, value, ex, nx))

    def expire(self, key: str, seconds: int, *, lt: bool) -> None:
        self._commands.append(("expire", key, seconds, lt))

    async def execute(self) -> list[bool | None]:
        if self._redis.error:
            raise self._redis.error
        commands, self._commands = self._commands, []
        self._redis.round_trips.append(commands)
        return [not (command[-1] and command[1] in self._redis.taken) or None for command in commands]


class FakeRedis:
    def __init__(self) -> None:
        self.round_trips: list[list[tuple[Any, ...]]] = []
        self.taken: set[str] = set()
        self.error: Exception | None = None
        self.is_closed = False

    def pipeline(self, *, transaction: bool) -> Pipeline:
        assert transaction is False
        return Pipeline(self)

    async def aclose(self) -> None:
        self.is_closed = True

    @property
    def leased(self) -> list[tuple[str, bool]]:
        """The keys of all requested leases, and whether they were requested only if free."""
        return [(command[1], command[4]) for trip in self.round_trips for command in trip if command[0] == "set"]


class Layer:
    """The channel layer: records messages to groups, and fails or hangs on demand."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, dict[str, Any]]] = []
        self.errors: list[Exception] = []
        self.hangs = False

    async def group_send(self, group: str, message: dict[str, Any]) -> None:
        if self.hangs:
            await asyncio.Event().wait()
        if self.errors:
            raise self.errors.pop(0)
        self.sent.append((group, message))


class FakeRelay:
    """A relay without a stream."""

    def __init__(self, signup_id: UUID, gateway: Any, stream: Any, *, tell: Any, is_watched: Any) -> None:
        self.signup_id, self.gateway, self.stream, self.tell, self.is_watched = (
            signup_id, gateway, stream, tell, is_watched,
        )  # fmt: skip
        self.state: Any = SimpleNamespace(text="the state")
        self.slowness = "delayed"
        self.until: list[float] = []
        self.is_over = asyncio.Event()
        self.context: dict[str, Any] = {}

    async def run(self) -> None:
        self.context = dict(get_contextvars())
        await self.is_over.wait()

    async def auth_answer(self, *, until: float) -> Any:
        self.until.append(until)
        return self.state


class Stream:
    is_closed = False

    def close(self) -> None:
        self.is_closed = True


class Gateway:
    def __init__(self) -> None:
        self.posts: list[tuple[UUID, SubmittedUser]] = []
        self.streams: list[Stream] = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.error: Exception | None = None
        self.is_closed = False
        self.context: dict[str, Any] = {}

    async def post_user(self, signup_id: UUID, user: SubmittedUser) -> Stream:
        self.posts.append((signup_id, user))
        self.context = dict(get_contextvars())
        await self.may_answer.wait()
        if self.error:
            raise self.error
        self.streams.append(Stream())
        return self.streams[-1]

    async def close(self) -> None:
        self.is_closed = True


class Made(SimpleNamespace):
    pool: RelayPool
    redis: FakeRedis
    layer: Layer
    gateway: Gateway
    clock: Clock


@pytest.fixture
async def made(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> AsyncIterator[Made]:
    """A pool whose background tasks do nothing."""

    async def nothing(self: RelayPool) -> None:
        """No task."""

    made = Made(redis=FakeRedis(), layer=Layer(), gateway=Gateway(), clock=Clock())
    monkeypatch.setattr(RelayPool, "_tend", nothing)
    monkeypatch.setattr(RelayPool, "_publish", nothing)
    arrange(monkeypatch, made)
    made.pool = RelayPool()
    yield made
    await made.pool.close()


@pytest.fixture
async def running(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> AsyncIterator[Made]:
    """A pool with its tasks, whose pauses are short."""
    made = Made(redis=FakeRedis(), layer=Layer(), gateway=Gateway(), clock=Clock())
    arrange(monkeypatch, made)
    monkeypatch.setattr(relay_pool, "AWAY_PAUSE", 0.001)
    monkeypatch.setattr(relay_pool, "LEASED_AFTER", 0.0)
    made.pool = RelayPool()
    yield made
    await made.pool.close()


def arrange(monkeypatch: pytest.MonkeyPatch, made: Made) -> None:
    pool_of_redis: list[tuple[float, int]] = []
    made.asked_for = pool_of_redis
    monkeypatch.setattr(relay_pool, "Redis", SimpleNamespace(from_pool={"the pool": made.redis}.__getitem__))
    monkeypatch.setattr(
        relay_pool,
        "redis_pool",
        lambda within, *, connections: pool_of_redis.append((within, connections)) or "the pool",
    )
    monkeypatch.setattr(relay_pool, "Gateway", lambda: made.gateway)
    monkeypatch.setattr(relay_pool, "StreamRelay", FakeRelay)
    monkeypatch.setattr(relay_pool, "get_channel_layer", lambda: made.layer)
    monkeypatch.setattr(relay_pool, "time", made.clock)


async def holds(condition: Callable[[], object], what: str) -> None:
    async def does() -> bool:
        return bool(condition())

    await eventually_async(does, what=what)


def key(signup_id: UUID) -> str:
    return f"front:relay:{signup_id}"


def test_a_group_has_the_name_of_its_sign_up() -> None:
    assert group_of(ONE) == f"signup.{ONE}"


async def test_redis_is_asked_over_one_connection_with_a_timeout(made: Made) -> None:
    assert made.asked_for == [(relay_pool.ANSWERS_WITHIN, 1)]


# --- Leases -------------------------------------------------------------------------------------------------------


async def test_leases_are_renewed_all_at_intervals_and_only_new_ones_in_between(made: Made) -> None:
    pool = made.pool
    pool._running = {ONE: None, TWO: None}
    pool._unleased = {TWO, THREE}
    made.clock.now += TEND_SECONDS - 0.001
    assert pool._due() == [TWO], "the third has ended before its first lease"
    assert pool._due() == []
    made.clock.now = 1000.0 + TEND_SECONDS
    pool._unleased = {TWO}
    assert pool._due() == [ONE, TWO]
    assert pool._due() == []
    made.clock.now += TEND_SECONDS - 0.001
    assert pool._due() == []
    made.clock.now += 0.001
    assert pool._due() == [ONE, TWO]


async def test_leases_are_set_in_one_round_trip_and_expire(made: Made) -> None:
    assert await made.pool._lease([ONE, TWO], only_free=False) == [ONE, TWO]
    assert made.redis.round_trips == [
        [("set", key(ONE), 1, LEASE_SECONDS, False), ("set", key(TWO), 1, LEASE_SECONDS, False)], [],
    ]  # fmt: skip


async def test_leases_of_other_processes_are_shortened_to_the_duration_of_a_new_one(made: Made) -> None:
    made.redis.taken = {key(ONE)}
    assert await made.pool._lease([ONE, TWO], only_free=True) == [TWO]
    assert made.redis.round_trips == [
        [("set", key(ONE), 1, LEASE_SECONDS, True), ("set", key(TWO), 1, LEASE_SECONDS, True)],
        [("expire", key(ONE), LEASE_SECONDS, True)],
    ]


async def test_nothing_to_lease_and_a_redis_that_was_just_away_cost_no_round_trip(made: Made) -> None:
    assert await made.pool._lease([], only_free=True) == []
    made.pool._breaker.note_failure(RedisError("away"))
    assert await made.pool._lease([ONE], only_free=False) == []
    assert made.redis.round_trips == []


async def test_a_redis_that_answers_again_is_noted(made: Made, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    made.pool._breaker._is_away = True
    await made.pool._lease([ONE], only_free=False)
    assert "Redis is back" in caplog.text


# --- Taking over --------------------------------------------------------------------------------------------------


async def test_a_watched_sign_up_is_left_to_its_process_for_a_while(made: Made) -> None:
    pool = made.pool
    pool._running = {ONE: None}
    pool._watched = {ONE: set(), TWO: set()}
    assert pool._left_alone() == []
    made.clock.now += 0.5
    pool._watched[THREE] = set()
    assert pool._left_alone() == []
    made.clock.now = 1000.0 + TAKEN_OVER_AFTER - 0.001
    assert pool._left_alone() == []
    made.clock.now = 1000.0 + TAKEN_OVER_AFTER
    assert pool._left_alone() == [TWO]
    del pool._watched[TWO]
    made.clock.now += 0.5
    assert pool._left_alone() == [THREE]
    # A sign-up that is watched again later gets the full time again.
    pool._watched[TWO] = set()
    assert pool._left_alone() == [THREE]


async def test_a_watched_sign_up_without_a_relay_is_relayed_here(running: Made) -> None:
    pool = running.pool
    for signup_id in (ONE, TWO):
        pool.watch(signup_id, lambda: None)
    running.redis.taken = {key(TWO)}
    await holds(lambda: pool._orphans.keys() == {ONE, TWO}, "they are known")
    running.clock.now += TAKEN_OVER_AFTER
    pool._work.set()
    await holds(lambda: ONE in pool._running, "the first is taken over")
    assert TWO not in pool._running
    assert running.redis.leased == [(key(ONE), True), (key(TWO), True)]
    relay: Any = pool._running[ONE]
    assert (relay.signup_id, relay.gateway, relay.stream) == (ONE, running.gateway, None)
    assert (relay.is_watched(ONE), relay.is_watched(THREE)) == (True, False)


async def test_a_sign_up_that_ends_or_begins_while_its_lease_is_requested_is_not_taken_over(
    running: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = running.pool
    begun = object()

    async def meanwhile(signup_ids: Any, *, only_free: bool) -> list[UUID]:
        if not only_free or not signup_ids:
            return []
        pool._watched.pop(ONE, None)
        pool._running[TWO] = begun
        asked.extend(signup_ids)
        return list(signup_ids)

    asked: list[UUID] = []
    monkeypatch.setattr(pool, "_lease", meanwhile)
    for signup_id in (ONE, TWO):
        pool.watch(signup_id, lambda: None)
    await holds(lambda: len(pool._orphans) == 2, "they are known")
    running.clock.now += TAKEN_OVER_AFTER
    pool._work.set()
    await holds(lambda: asked, "their leases are asked for")
    await asyncio.sleep(0)
    assert pool._running == {TWO: begun}
    pool._running.clear()


async def test_a_relay_that_ends_is_removed_and_its_log_lines_name_the_sign_up(running: Made) -> None:
    relay: Any = running.pool._start(ONE)
    assert running.pool._running == {ONE: relay}
    await holds(lambda: relay.context, "it runs")
    assert relay.context["signup_id"] == str(ONE)
    relay.is_over.set()
    await holds(lambda: not running.pool._running, "it is forgotten")


async def test_while_redis_is_away_or_may_lose_messages_sockets_read_the_states_themselves(
    running: Made, caplog: pytest.LogCaptureFixture
) -> None:
    pool, calls = running.pool, list[str]()
    for signup_id, name in ((ONE, "one"), (ONE, "another"), (TWO, "two")):
        pool.watch(signup_id, lambda name=name: calls.append(name))
    running.redis.error = RedisError("away")
    pool._running[THREE] = None
    running.clock.now += TEND_SECONDS
    pool._work.set()
    await holds(lambda: calls.count("two") > 2, "they read again and again")
    assert {calls.count(name) - calls.count("two") for name in ("one", "another")} <= {-1, 0, 1}
    assert pool._breaker.has_failed_lately
    assert "the lights every second: away" in caplog.text
    del pool._running[THREE]


async def test_a_bug_in_leasing_is_logged_and_the_next_round_comes(
    running: Made, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    running.redis.error = ValueError("a bug")
    running.pool._running[THREE] = None
    monkeypatch.setattr(relay_pool, "TEND_SECONDS", 0.001)
    running.clock.now += TEND_SECONDS
    running.pool._work.set()
    await holds(lambda: "the leases of the relays can't be renewed" in caplog.text, "it is logged")
    running.redis.error = None
    running.clock.now += TEND_SECONDS
    await holds(lambda: running.redis.leased == [(key(THREE), False)], "the lease is renewed")
    del running.pool._running[THREE]


async def test_the_pool_waits_for_work_and_then_briefly_for_more(
    running: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert LEASED_AFTER > 0
    monkeypatch.setattr(relay_pool, "TEND_SECONDS", 600.0)
    pool = running.pool
    pool._work.set()
    await asyncio.sleep(0)
    for signup_id in (ONE, TWO):
        pool._running[signup_id] = None
        pool._unleased.add(signup_id)
        pool._work.set()
    await holds(lambda: len(running.redis.leased) == 2, "both are leased")
    assert {each for each, _ in running.redis.leased} == {key(ONE), key(TWO)}
    pool._running.clear()


async def test_watching_ends_with_the_last_socket_of_the_sign_up(made: Made) -> None:
    pool = made.pool
    calls = [lambda: None, lambda: None]
    for call in calls:
        pool.watch(ONE, call)
    assert pool._work.is_set()
    assert pool._watched == {ONE: set(calls)}
    pool.unwatch(ONE, calls[0])
    assert pool._watched == {ONE: {calls[1]}}
    pool.unwatch(ONE, calls[1])
    assert pool._watched == {}


# --- Signing up ---------------------------------------------------------------------------------------------------


async def test_a_sign_up_is_posted_relayed_and_leased_and_its_answer_awaited(made: Made, settings: Settings) -> None:
    settings.SIGNUP_DEADLINE = 30.0
    loop = asyncio.get_running_loop()
    began = loop.time()
    made.pool._work.clear()
    state = await made.pool.sign_up(ONE, USER)
    relay: Any = made.pool._running[ONE]
    assert state is relay.state
    assert made.gateway.posts == [(ONE, USER)]
    assert made.gateway.context["signup_id"] == str(ONE)
    assert relay.stream is made.gateway.streams[0]
    assert not relay.stream.is_closed
    assert made.pool._unleased == {ONE}
    assert made.pool._work.is_set()
    assert made.pool._posts == 0
    [until] = relay.until
    assert began + 30 <= until <= loop.time() + 30


async def test_an_answer_that_comes_after_the_deadline_has_a_moment_for_its_first_state(
    made: Made, settings: Settings
) -> None:
    settings.SIGNUP_DEADLINE = 0.0
    loop = asyncio.get_running_loop()
    began = loop.time()
    await made.pool.sign_up(ONE, USER)
    [until] = made.pool._running[ONE].until
    assert began + relay_pool.FIRST_STATE_WITHIN <= until <= loop.time() + relay_pool.FIRST_STATE_WITHIN


async def test_a_second_post_of_a_sign_up_joins_its_relay(made: Made) -> None:
    await made.pool.sign_up(ONE, USER)
    relay = made.pool._running[ONE]
    made.pool._unleased.clear()
    assert await made.pool.sign_up(ONE, USER) is relay.state
    assert made.pool._running == {ONE: relay}
    assert [stream.is_closed for stream in made.gateway.streams] == [False, True]
    assert made.pool._unleased == set()


async def test_a_sign_up_without_any_state_is_unavailable(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing(self: FakeRelay, *, until: float) -> None:
        """Auth did not send a state in time."""

    monkeypatch.setattr(FakeRelay, "auth_answer", nothing)
    with pytest.raises(GatewayError, match="503: auth gave no state") as refused:
        await made.pool.sign_up(ONE, USER)
    assert refused.value.status == 503


async def test_posts_are_accepted_up_to_the_limit_and_one_more_is_refused(made: Made) -> None:
    made.pool._posts = POSTS_MAX - 1
    made.gateway.may_answer.clear()
    waiting = asyncio.create_task(made.pool.sign_up(ONE, USER))
    await holds(lambda: made.gateway.posts, "it is posted")
    with pytest.raises(GatewayError, match="503: too many sign-ups wait for auth") as refused:
        await made.pool.sign_up(TWO, USER)
    assert (refused.value.status, refused.value.retry_after) == (503, 5)
    made.gateway.may_answer.set()
    await waiting
    assert made.pool._posts == POSTS_MAX - 1


async def test_a_refusal_frees_the_place_and_is_passed_on_without_an_error_in_the_log(
    made: Made, caplog: pytest.LogCaptureFixture
) -> None:
    made.gateway.error = GatewayError(422, "invalid")
    with pytest.raises(GatewayError, match="422: invalid"):
        await made.pool.sign_up(ONE, USER)
    assert made.pool._posts == 0
    assert made.pool._running == {}
    assert caplog.records == []


async def test_a_sign_up_continues_when_its_browser_leaves(made: Made) -> None:
    made.gateway.may_answer.clear()
    waiting = asyncio.create_task(made.pool.sign_up(ONE, USER))
    await holds(lambda: made.gateway.posts, "it is posted")
    waiting.cancel()
    made.gateway.may_answer.set()
    await holds(lambda: ONE in made.pool._running, "it is relayed")


# --- News ---------------------------------------------------------------------------------------------------------


async def test_a_state_is_sent_to_its_group_once_with_the_newest_text(running: Made) -> None:
    relay: Any = running.pool._start(ONE)
    relay.tell(relay)
    relay.tell(relay)
    relay.state.text = "the newest"
    await holds(lambda: running.layer.sent, "it is sent")
    await holds(lambda: not running.pool._news, "nothing is left to send")
    assert running.layer.sent == [
        (f"signup.{ONE}", {"type": "signup.news", "text": "the newest", "slowness": "delayed"}),
    ]  # fmt: skip


async def test_a_relay_without_a_state_has_nothing_to_send(made: Made) -> None:
    relay: Any = made.pool._start(ONE)
    relay.state = None
    await made.pool._send(relay)
    assert made.layer.sent == []


async def test_a_channel_layer_that_hangs_times_out(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    made.layer.hangs = True
    monkeypatch.setattr(relay_pool, "ANSWERS_WITHIN", 0.01)
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(TimeoutError):
            await made.pool._send(made.pool._start(ONE))


@pytest.mark.parametrize("error", [RedisError("away"), OSError("away"), TimeoutError()])
async def test_states_that_could_not_be_sent_are_sent_when_redis_is_back(
    running: Made, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    running.layer.errors = [error, error]
    relay: Any = running.pool._start(ONE)
    running.pool._work.clear()
    relay.tell(relay)
    await holds(lambda: running.layer.sent, "it is sent at last")
    assert running.pool._breaker._is_away
    assert f"Redis is unavailable: sockets ask auth for the lights every second: {error}" in caplog.text


async def test_a_newer_state_of_a_relay_replaces_the_one_that_could_not_be_sent(running: Made) -> None:
    pool, newest = running.pool, FakeRelay(ONE, None, None, tell=None, is_watched=None)
    newest.state = SimpleNamespace(text="newest")
    relay: Any = pool._start(ONE)

    async def fail(failing: Any) -> None:
        sent.append(failing)
        if len(sent) == 1:
            pool._news[ONE] = newest
            raise RedisError("away")

    sent: list[Any] = []
    pool._send = fail
    relay.tell(relay)
    await holds(lambda: len(sent) == 2, "it is sent again")
    assert sent == [relay, newest]


async def test_a_bug_in_sending_is_logged_and_other_states_are_sent(
    running: Made, caplog: pytest.LogCaptureFixture
) -> None:
    running.layer.errors = [ValueError("a bug")]
    for signup_id in (ONE, TWO):
        relay: Any = running.pool._start(signup_id)
        relay.tell(relay)
    await holds(lambda: running.layer.sent, "the second is sent")
    assert [group for group, _ in running.layer.sent] == [f"signup.{TWO}"]
    assert "a sign-up's state can't be sent to its group" in caplog.text


async def test_while_redis_is_down_states_wait(running: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_pool, "AWAY_PAUSE", 600.0)
    running.pool._breaker.note_failure(RedisError("away"))
    relay: Any = running.pool._start(ONE)
    relay.tell(relay)
    await holds(lambda: not running.pool._has_news.is_set(), "it has been noticed")
    assert (running.layer.sent, running.pool._news) == ([], {ONE: relay})


# --- Tasks --------------------------------------------------------------------------------------------------------


async def test_a_task_inherits_no_context_of_the_request_that_started_it(
    made: Made, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    current: ContextVar[str] = ContextVar("current", default="nothing")
    current.set("a request")
    forget, known_at_its_end = made.pool._forget, []
    monkeypatch.setattr(made.pool, "_forget", lambda task: known_at_its_end.append(current.get()) or forget(task))

    async def work() -> str:
        return current.get()

    task = made.pool._spawn(work())
    assert task in made.pool._tasks
    assert await task == "nothing"
    await holds(lambda: task not in made.pool._tasks, "it is forgotten")
    assert known_at_its_end == ["nothing"]
    assert caplog.records == []


async def test_a_task_that_fails_is_logged(made: Made, caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> None:
        raise ValueError("a bug")

    task = made.pool._spawn(fail())
    await holds(task.done, "it has failed")
    [record] = [each for each in caplog.records if each.levelno == logging.ERROR]
    assert record.getMessage() == "a task of the relays failed"
    assert record.exc_info
    assert "ValueError: a bug" in caplog.text


async def test_the_pool_cancels_its_tasks_at_its_end_repeatedly_if_necessary(
    made: Made, caplog: pytest.LogCaptureFixture
) -> None:
    cancellations = []

    async def stubborn() -> None:
        while len(cancellations) < 3:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancellations.append(1)

    task, other = made.pool._spawn(stubborn()), made.pool._spawn(asyncio.sleep(600))
    await asyncio.sleep(0)
    async with asyncio.timeout(PATIENCE):
        await made.pool.close()
    assert task.done()
    assert other.cancelled()
    assert len(cancellations) == 3
    assert caplog.records == []
    assert (made.gateway.is_closed, made.redis.is_closed) == (True, True)


async def test_an_event_loop_has_one_pool_until_that_is_closed(made: Made) -> None:
    first = relays()
    assert relays() is first
    assert isinstance(first, RelayPool)
    await made.pool.close()
    assert relays() is first, "another pool was closed"
    await first.close()
    second = relays()
    assert second is not first
    await second.close()
