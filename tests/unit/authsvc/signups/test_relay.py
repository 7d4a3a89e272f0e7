"""The relay's tasks: what each does and how often. Records of the calls replace the functions that the tasks call."""

import logging
import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from django.db import OperationalError

from authsvc.management.commands import relay_signups as module
from authsvc.management.commands.relay_signups import (
    ACKNOWLEDGED_WITHIN,
    COUNTED_EVERY,
    ERASED_AT_ONCE,
    ERASED_EVERY,
    PAUSE,
    REMOVED_AT_ONCE,
    ROLLED_UP_EVERY,
    Command,
    OutboxRelay,
)
from authsvc.metrics import INCOMPLETE, RELAYED, UNCONFIRMED
from authsvc.signups.outbox import DueEvent
from eventbus.messages import Outgoing
from runtime.errors import TransientError
from tests.unit.fakes import Clock, KeepingProducer

AWAY = OperationalError("the database is away")


class Calls:
    """A replacement for a function: records the arguments of each call, and returns or raises the next of `results`,
    the last one repeatedly.
    """

    def __init__(self, *results: Any) -> None:
        self.made: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        self.results = list(results)

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        self.made.append((arguments, options))
        result = self.results.pop(0) if len(self.results) > 1 else next(iter(self.results), None)
        if isinstance(result, Exception):
            raise result
        return result

    def __len__(self) -> int:
        return len(self.made)


class Surroundings:
    """Stand-ins for the functions that the relay calls."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock, self.producer = Clock(), KeepingProducer()
        self.clock.now = 0.0
        self.lag = SimpleNamespace(close=Calls())
        self.sampler = SimpleNamespace(sample=Calls())
        self.roll_up = SimpleNamespace(run=Calls())
        for name in (
            "claim_due", "give_back_attempts", "unread_by_service", "count_incomplete", "delete_expired",
            "erase_expired", "remove_closed", "close_old_connections",
        ):  # fmt: skip
            setattr(self, name, Calls())
            monkeypatch.setattr(module, name, getattr(self, name))
        self.unread_by_service.results = [{"auth": 0, "chat": 0}]
        self.claim_due.results = [[]]
        monkeypatch.setattr(module, "time", self.clock)
        monkeypatch.setattr(module, "EventProducer", lambda: self.producer)
        monkeypatch.setattr(module, "LagReader", lambda _: self.lag)
        monkeypatch.setattr(module, "LagSampler", lambda: self.sampler)
        monkeypatch.setattr(module, "RollUp", lambda: self.roll_up)
        monkeypatch.setattr(module, "requested", asked)


def asked(transaction: Any, record: Any, *, attempt: int, services: Sequence[str]) -> Outgoing:
    """The message of an event, as a text with all its fields."""
    return Outgoing("asked", None, f"{transaction.id.int} {record} {attempt} {','.join(services)}".encode())


def due(number: int) -> DueEvent:
    return DueEvent(SimpleNamespace(id=UUID(int=number)), "kim", number + 1, ["chat", "customer"])


@pytest.fixture
def around(monkeypatch, settings) -> Surroundings:
    settings.RELAY_RATE = 20
    return Surroundings(monkeypatch)


@pytest.fixture
def stop() -> threading.Event:
    return threading.Event()


@pytest.fixture
def relay(around, stop) -> OutboxRelay:
    return OutboxRelay(stop)


# --- Publishing ---------------------------------------------------------------------------------------------------


def test_due_events_are_published_to_the_services_that_have_not_answered(relay, around):
    around.claim_due.results = [[due(1), due(2)]]
    relayed = RELAYED._value.get()
    assert relay.relay_once() == 2
    assert [message.value for message in around.producer.sent] == [b"1 kim 2 chat,customer", b"2 kim 3 chat,customer"]
    assert around.producer.timeouts == [ACKNOWLEDGED_WITHIN]
    assert RELAYED._value.get() == relayed + 2
    assert len(around.give_back_attempts) == 0
    assert len(around.close_old_connections) == 1


def test_unacknowledged_events_are_not_counted_and_get_their_attempt_back(relay, around, caplog):
    around.claim_due.results = [[due(1), due(2), due(3)]]
    around.producer.lost = [b"1 kim 2 chat,customer", b"3 kim 4 chat,customer"]
    relayed = RELAYED._value.get()
    assert relay.relay_once() == 1
    assert around.give_back_attempts.made == [(([UUID(int=1), UUID(int=3)],), {})]
    assert RELAYED._value.get() == relayed + 1
    assert "2 messages were not acknowledged by Kafka" in caplog.text


@pytest.mark.parametrize(
    ("rate", "unread", "limit"),
    [
        (20, {"auth": 0, "chat": 19}, 20), (20, {"auth": 0, "chat": 20}, 2), (20, {"auth": 21, "chat": 0}, 2),
        (5, {"auth": 5, "chat": 0}, 1), (39, {"auth": 40, "chat": 0}, 3), (1, {"auth": 0, "chat": 0}, 1),
    ],
)  # fmt: skip
def test_the_relay_claims_the_events_of_a_second_or_a_tenth_while_a_consumer_is_behind(
    relay, around, settings, rate, unread, limit
):
    settings.RELAY_RATE = rate
    around.unread_by_service.results = [unread]
    relay.relay_once()
    assert around.claim_due.made == [((), {"limit": limit})]
    assert around.unread_by_service.made == [((around.lag,), {})]
    assert around.sampler.sample.made == [((unread,), {})]


def test_while_the_lag_is_unknown_the_relay_slows_down(relay, around, caplog):
    around.unread_by_service.results = [TransientError("Kafka is starting")]
    relay.relay_once()
    assert around.claim_due.made == [((), {"limit": 2})]
    assert len(around.sampler.sample) == 0
    assert "the relay slows down because the lag is unknown: Kafka is starting" in caplog.text


def test_a_stop_while_the_lag_is_read_leaves_due_events_to_the_next_relay(relay, around, stop):
    around.claim_due.results = [[due(1)]]
    around.sampler.sample = lambda _: stop.set()  # It gets the answer.
    assert relay.relay_once() == 0
    assert len(around.claim_due) == 0
    assert around.producer.sent == []


# --- Failures -----------------------------------------------------------------------------------------------------

TASKS = {
    "relay_once": ("claim_due", "publish events"),
    "count_incomplete": ("count_incomplete", "count incomplete transactions"),
    "roll_up_traffic": ("roll_up.run", "roll up traffic"),
    "erase_expired": ("erase_expired", "erase expired sign-ups"),
    "remove_closed": ("remove_closed", "remove closed accounts"),
}


def calls_of(around: Surroundings, task: str) -> Calls:
    found: Any = around
    for name in TASKS[task][0].split("."):
        found = getattr(found, name)
    return found


@pytest.mark.parametrize("task", TASKS)
def test_a_transient_error_of_a_task_is_logged_and_does_not_end_the_relay(relay, around, caplog, task):
    around.delete_expired.results = [0]
    calls_of(around, task).results = [AWAY]
    assert not getattr(relay, task)()
    assert f"the relay cannot {TASKS[task][1]} now and will retry: the database is away" in caplog.text
    assert len(around.close_old_connections) == 1


@pytest.mark.parametrize("task", TASKS)
def test_a_bug_in_a_task_ends_the_relay(relay, around, task):
    around.delete_expired.results = [0]
    calls_of(around, task).results = [ValueError("a bug")]
    with pytest.raises(ValueError, match="a bug"):
        getattr(relay, task)()
    assert len(around.close_old_connections) == 1


# --- What comes round again ---------------------------------------------------------------------------------------


def runs_at(relay: OutboxRelay, around: Surroundings, task: str, *times: float) -> list[bool]:
    """Whether the task ran at each of these times."""
    ran = []
    for at in times:
        around.clock.now = at
        before = len(calls_of(around, task))
        getattr(relay, task)()
        ran.append(len(calls_of(around, task)) > before)
    return ran


@pytest.mark.parametrize(
    ("task", "result", "every"),
    [
        ("count_incomplete", {"waiting": 3}, COUNTED_EVERY),
        ("count_incomplete", AWAY, COUNTED_EVERY),
        ("roll_up_traffic", None, ROLLED_UP_EVERY),
        ("roll_up_traffic", AWAY, ROLLED_UP_EVERY),
        ("erase_expired", ERASED_AT_ONCE - 1, ERASED_EVERY),
        ("remove_closed", REMOVED_AT_ONCE - 1, ERASED_EVERY),
    ],
)
def test_a_task_runs_at_once_and_then_at_its_interval(relay, around, task, result, every):
    around.delete_expired.results = [ERASED_AT_ONCE - 1]
    calls_of(around, task).results = [result]
    times = (0.0, 0.5, every - 0.5, every, every + 1.0, 2 * every)
    assert runs_at(relay, around, task, *times) == [True, False, False, True, False, True]


@pytest.mark.parametrize(
    ("task", "results"),
    [
        ("erase_expired", [ERASED_AT_ONCE, ERASED_AT_ONCE, 0]),
        ("erase_expired", [AWAY, ERASED_AT_ONCE, 0]),
        ("remove_closed", [REMOVED_AT_ONCE, REMOVED_AT_ONCE, 0]),
        ("remove_closed", [AWAY, REMOVED_AT_ONCE, 0]),
    ],
)
def test_a_task_runs_again_at_once_if_more_may_be_left_or_the_database_was_down(relay, around, task, results):
    around.delete_expired.results = [0]
    calls_of(around, task).results = list(results)
    assert runs_at(relay, around, task, 0.0, 1.0, 2.0, 3.0) == [True, True, True, False]


def test_the_relay_erases_a_bounded_number_per_round_until_none_is_left(relay, around):
    around.delete_expired.results = [ERASED_AT_ONCE, 7]
    around.erase_expired.results = [0]
    expired = UNCONFIRMED.labels("expired")
    before = expired._value.get()
    assert runs_at(relay, around, "erase_expired", 0.0, 1.0, 2.0) == [True, True, False]
    assert around.delete_expired.made == around.erase_expired.made == [((ERASED_AT_ONCE,), {})] * 2
    assert expired._value.get() == before + ERASED_AT_ONCE + 7


def test_the_relay_removes_a_bounded_number_of_closed_accounts(relay, around):
    around.remove_closed.results = [0]
    relay.remove_closed()
    assert around.remove_closed.made == [((REMOVED_AT_ONCE,), {})]


def test_the_counts_are_shown_and_unknown_while_they_cannot_be_read(relay, around):
    around.count_incomplete.results = [{"waiting": 3, "due": 2, "stalled": 1}, AWAY]
    shown = {state: INCOMPLETE.labels(state) for state in ("waiting", "due", "stalled")}
    relay.count_incomplete()
    assert {state: gauge._value.get() for state, gauge in shown.items()} == {"waiting": 3, "due": 2, "stalled": 1}
    around.clock.now += COUNTED_EVERY
    relay.count_incomplete()
    assert all(math.isnan(gauge._value.get()) for gauge in shown.values())


# --- Its life -----------------------------------------------------------------------------------------------------


def test_a_relay_that_ends_closes_its_clients_without_waiting(relay, around, monkeypatch):
    closed = Calls()
    monkeypatch.setattr(module.publisher, "close", closed)
    relay.close()
    assert around.producer.closed == [0]
    assert (len(closed), len(around.lag.close)) == (1, 1)


class FakeRole:
    """A role of two rounds, whose database may be missing."""

    def __init__(self, said: list[Any], *, is_there: bool) -> None:
        self.stop = SimpleNamespace(wait=self.pause, is_set=lambda: said.count(("pause", PAUSE)) == 2)
        self._said, self._is_there = said, is_there

    def wait_for(self, what: str, check: Any) -> bool:
        self._said.append(("wait for", what, check.func, check.args))
        return self._is_there

    def ready(self) -> None:
        self._said.append("ready")

    def beat(self) -> None:
        self._said.append("beat")

    def pause(self, seconds: float) -> None:
        self._said.append(("pause", seconds))


class Saying:
    """Records the name of each called method."""

    def __init__(self, said: list[Any], name: str) -> None:
        self._said, self._name = said, name

    def __getattr__(self, method: str) -> Any:
        return lambda: self._said.append(f"{self._name}.{method}")


@pytest.mark.parametrize("is_there", [True, False])
def test_the_relay_waits_for_its_database_and_then_runs_each_task_in_every_round(monkeypatch, caplog, is_there):
    caplog.set_level(logging.INFO)
    said: list[Any] = []

    @contextmanager
    def running_role(name: str) -> Iterator[FakeRole]:
        said.append(name)
        yield FakeRole(said, is_there=is_there)

    monkeypatch.setattr(module, "running_role", running_role)
    monkeypatch.setattr(module, "OutboxRelay", lambda _: Saying(said, "relay"))
    monkeypatch.setattr(module, "Follower", lambda: Saying(said, "follower"))
    monkeypatch.setattr(module, "attendance", Saying(said, "attendance"))
    Command().handle()
    a_round = [
        "beat", "relay.relay_once", "relay.count_incomplete", "relay.roll_up_traffic", "relay.erase_expired",
        "relay.remove_closed", ("pause", PAUSE),
    ]  # fmt: skip
    begin = ["relay", ("wait for", "its database", module.check_database, ("authsvc",))]
    end = ["attendance.close", "follower.close", "relay.close"]
    works = ["follower.start", "attendance.start", "ready", *a_round, *a_round, *end]
    assert said == begin + (works if is_there else [])
