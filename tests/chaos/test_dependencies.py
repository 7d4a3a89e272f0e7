"""Each dependency is killed, and frozen, during a stream of sign-ups that spans several batches.

Meanwhile, only what the dependency provides is unavailable (docs/invariants.md, 12). After its recovery, every sign-up
completes within RECOVERS_WITHIN seconds.
"""

import itertools
import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from functools import partial
from http.client import HTTPConnection, HTTPException
from typing import Any, Literal
from uuid import uuid4

import pytest

from tests.client import SERVICES, events, opened, request
from tests.conftest import Person, new_person
from tests.contract.documents import check_response
from tests.servers import KafkaServer, MailServer, PostgresqlServer, Server, free_port
from tests.servers.process import LOOPBACK, Process
from tests.stack import Stack
from tests.waiting import PATIENCE, eventually

pytestmark = [pytest.mark.alone, pytest.mark.needs("application", "caddy", "postgresql", "kafka")]

ALL = frozenset(SERVICES)
# Seconds between two sign-ups, and for which a dependency is down: about fifteen batches.
EVERY = 0.4
AWAY = 6.0
# Seconds after which everything must be complete again.
RECOVERS_WITHIN = 10.0
# Seconds within which every light that does not need the dependency must turn, although it is down.
TURNS_WITHIN = 3.0
# The longest time of any answer in seconds, whichever dependency is down.
ANSWERS_WITHIN = 8.0

Fault = Literal["killed", "frozen"]


@dataclass(frozen=True)
class Case:
    """`turning`: the lights that turn while `dependency` is down. If `refuses`, sign-ups get 503 with Retry-After."""

    dependency: str
    turning: frozenset[str] = ALL
    refuses: bool = False
    # The client's own connection may break, or get no answer: it asks again.
    is_in_the_way: bool = False
    # People confirm their address by the link in a mail before they are signed up.
    confirms: bool = False


CASES = [
    Case("redis"),
    Case("kafka", turning=frozenset({"auth"})),
    Case("postgresql-auth", turning=frozenset(), refuses=True),
    Case("postgresql-chat", turning=ALL - {"chat"}),
    Case("postgresql-customer", turning=ALL - {"customer"}),
    Case("caddy", turning=frozenset(), is_in_the_way=True),
    Case("web"),
    Case("auth-1", is_in_the_way=True),
    Case("auth-results", turning=frozenset({"auth"})),
    Case("chat", turning=ALL - {"chat"}),
    Case("customer", turning=ALL - {"customer"}),
    Case("relay"),
    Case("dead-letters"),
    Case("mail", turning=frozenset(), confirms=True),
]


@dataclass
class SignUp:
    """One person's sign-up as the client sees it. Times are of time.monotonic()."""

    person: Person = field(default_factory=new_person)
    key: str = field(default_factory=lambda: str(uuid4()))
    begun_at: float = field(default_factory=time.monotonic)
    longest_answer: float = 0.0
    accepted_at: float | None = None
    complete_at: float | None = None
    turned_at: dict[str, float] = field(default_factory=dict)
    refusals: list[tuple[int, str | None]] = field(default_factory=list)

    def run(self, stack: Stack, give_up: threading.Event) -> None:
        """Post, and after a refusal or a lost answer post again with the same key, until every light has turned."""
        while self.complete_at is None and not give_up.is_set():
            asked_at = time.monotonic()
            with suppress(OSError, HTTPException):
                self._post(stack, asked_at)
            if self.complete_at is None:
                give_up.wait(0.3)

    def _post(self, stack: Stack, asked_at: float) -> None:
        headers = {"Accept": "text/event-stream", "Idempotency-Key": self.key}
        try:
            with opened(stack, "POST", "/user", self.person.form, **headers) as response:
                self.longest_answer = max(self.longest_answer, time.monotonic() - asked_at)
                if response.status != 200:
                    kind = response.headers.get("Content-Type", "")
                    check_response("POST", "/user", response.status, kind, response.read())
                    self.refusals.append((response.status, response.headers["Retry-After"]))
                    return
                self.accepted_at = self.accepted_at or time.monotonic()
                for event in events(response):
                    self._take(event.data)
        except TimeoutError:
            self.longest_answer = max(self.longest_answer, time.monotonic() - asked_at)
            raise

    def _take(self, state: dict[str, Any]) -> None:
        now = time.monotonic()
        for service, light in state.get("services", {}).items():
            assert light["status"] != "FAIL", json.dumps(state)
            if light["status"] == "SUCCESS":
                self.turned_at.setdefault(service, now)
        if state.get("complete"):
            self.complete_at = now


@dataclass
class ConfirmedSignUp(SignUp):
    """A person who signs up at the instance that sends mails, and opens the mailed link."""

    mails: MailServer = field(kw_only=True)

    def run(self, stack: Stack, give_up: threading.Event) -> None:
        with closing(HTTPConnection(LOOPBACK, stack.roles["confirming"].port, timeout=30)) as connection:
            headers = {"Content-Type": "application/json", "Idempotency-Key": self.key}
            connection.request("POST", "/user", json.dumps(self.person.form), headers)
            response = connection.getresponse()
            self.longest_answer = time.monotonic() - self.begun_at
            assert response.status == 202, response.read()
        self.accepted_at = time.monotonic()
        while not give_up.wait(0.1):
            if mail := self.mails.texts().get(self.person.email):
                [token] = re.findall(r"/signup/confirm/([^/\s]+)/", mail)
                confirmed = request(
                    stack, "POST", "/user/confirmations", {"token": token, "userPw": self.person.password}
                )
                assert confirmed.status == 200, confirmed.body
                break
        # The same key joins the sign-up, which is now like any other.
        super().run(stack, give_up)


class People:
    """Somebody signs up every EVERY seconds, each in a thread."""

    def __init__(self, stack: Stack, new_signup: Callable[[], SignUp] = SignUp) -> None:
        self._stack = stack
        self._new_signup = new_signup
        self._stop, self._give_up = threading.Event(), threading.Event()
        self._threads: list[threading.Thread] = []
        self.signups: list[SignUp] = []

    def __enter__(self) -> "People":
        self._source = threading.Thread(target=self._come)
        self._source.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.come_no_more()
        self._give_up.set()
        # A thread whose stream never completes reads heartbeats until the stream is closed, so they share one deadline.
        deadline = time.monotonic() + PATIENCE
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def come_no_more(self) -> None:
        self._stop.set()
        self._source.join()

    def _come(self) -> None:
        while not self._stop.wait(EVERY):
            signup = self._new_signup()
            self.signups.append(signup)
            self._threads.append(threading.Thread(target=signup.run, args=(self._stack, self._give_up), daemon=True))
            self._threads[-1].start()


@pytest.fixture(scope="module")
def targets() -> Iterator[tuple[Stack, dict[str, Server | Process]]]:
    """An installation in which each service has its own PostgreSQL, and its dependencies by name."""
    servers = {f"postgresql-{service}": PostgresqlServer() for service in sorted(SERVICES)}
    # Kafka's default, which is longer than AWAY: a frozen broker fences itself on waking only after its session.
    kafka = KafkaServer(session_timeout=9.0)
    with ExitStack() as cleanup:
        for server in (*servers.values(), kafka):
            cleanup.callback(server.close)
            server.launch()
        for server in (*servers.values(), kafka):
            server.wait_ready()
        urls = {
            f"{service.upper()}_DATABASE_URL": servers[f"postgresql-{service}"].env[f"{service.upper()}_DATABASE_URL"]
            for service in SERVICES
        }
        stack = cleanup.enter_context(
            Stack.real(postgresql=servers["postgresql-auth"], kafka=kafka, RELAY_FIRST_PAUSE="2", **urls)
        )
        assert stack.caddy
        mails = cleanup.enter_context(MailServer())
        confirming = stack.add_web("confirming", free_port(), SIGNUP_CONFIRM="mail", EMAIL_TIMEOUT="5", **mails.env)
        confirming.start()
        others = {"kafka": kafka, "redis": stack.redis, "caddy": stack.caddy, "mail": mails}
        yield stack, {**servers, **others, **stack.roles}


def are_complete(signups: Sequence[SignUp]) -> bool:
    return all(signup.complete_at for signup in signups)


@pytest.mark.parametrize("fault", ["killed", "frozen"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.dependency)
def test_a_dependency_that_is_down_costs_only_what_it_provides(
    targets: tuple[Stack, dict[str, Server | Process]], case: Case, fault: Fault, capsys: pytest.CaptureFixture[str]
):
    stack, by_name = targets
    target = by_name[case.dependency]
    mails = by_name["mail"]
    assert isinstance(mails, MailServer)
    with People(stack, partial(ConfirmedSignUp, mails=mails) if case.confirms else SignUp) as people:
        eventually(
            lambda: len(people.signups) >= 3 and are_complete(people.signups[:3]), what="everything works beforehand"
        )
        away_at = time.monotonic()
        (target.kill if fault == "killed" else target.pause)()
        try:
            eventually(lambda: time.monotonic() > away_at + AWAY, 2 * AWAY)
            back_at = time.monotonic()
        finally:
            (target.start if fault == "killed" else target.resume)()
        recovered_at = time.monotonic()
        people.come_no_more()
        with suppress(AssertionError):
            eventually(lambda: are_complete(people.signups), 60, what="everything is complete")
        took = max((signup.complete_at or recovered_at + 60) - recovered_at for signup in people.signups)
    meanwhile = [signup for signup in people.signups if away_at < signup.begun_at < back_at - TURNS_WITHIN]
    longest = max(signup.longest_answer for signup in people.signups)
    slowest = slowest_lights(meanwhile, case.turning)
    with capsys.disabled():
        print(
            f"\n{case.dependency} {fault}: {len(meanwhile)} sign-ups meanwhile, longest answer {longest:.1f} s, "
            f"slowest light {slowest:.1f} s, complete {took:.1f} s after recovery"
        )
    assert len(meanwhile) >= 5
    assert slowest <= TURNS_WITHIN or case.is_in_the_way
    assert longest <= ANSWERS_WITHIN or case.is_in_the_way
    assert took <= RECOVERS_WITHIN
    refusals = list(itertools.chain.from_iterable(signup.refusals for signup in people.signups))
    if case.refuses:
        assert refusals
    elif not case.is_in_the_way:
        assert refusals == []
    assert all(retry_after for status, retry_after in refusals if status == 503)
    assert {status for status, _ in refusals} <= {502, 503}
    rows = {service: {row.user_id for row in stack.rows(service)} for service in SERVICES}
    assert all(signup.person.user_id in rows[service] for signup in people.signups for service in SERVICES)


def slowest_lights(signups: Sequence[SignUp], turning: frozenset[str]) -> float:
    """The longest time, in seconds, from a sign-up's start to the last of these lights; 99 if one is missing."""
    times = [
        signup.turned_at.get(service, signup.begun_at + 99) - signup.begun_at
        for signup in signups
        for service in turning
    ]
    return max(times, default=0.0)
