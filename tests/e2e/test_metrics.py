"""Metrics of the running roles after a complete sign-up, a dead letter and a stalled sign-up."""

from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection

import pytest
from prometheus_client.parser import text_string_to_metric_families

from signup_sync.participants import PARTICIPANTS
from tests.client import SERVICES, produce_invalid, request, sign_up, topic_of
from tests.conftest import new_person, new_stack
from tests.e2e.test_page import stopped
from tests.plugin import Backing
from tests.servers.process import LOOPBACK
from tests.stack import RoleProcess, Stack
from tests.waiting import eventually

pytestmark = pytest.mark.needs("application")


@pytest.fixture(scope="module")
def impatient(backing: Backing) -> Iterator[Stack]:
    """An application that stalls sign-ups early: after two attempts, half a second apart."""
    with new_stack(
        backing, RELAY_MAX_ATTEMPTS="2", RELAY_FIRST_PAUSE="0.5", RELAY_MAX_PAUSE="0.5", STREAM_MAX_AGE="60"
    ) as stack:
        yield stack


def ask(role: RoleProcess, **headers: str) -> tuple[int, str]:
    """Return this process's own answer; header names have `_` for `-`."""
    with closing(HTTPConnection(LOOPBACK, role.port, timeout=30)) as connection:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request("GET", "/metrics", headers=sent)
        response = connection.getresponse()
        return response.status, response.read().decode()


def scrape(role: RoleProcess) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    status, body = ask(role)
    assert status == 200, role.name
    families = text_string_to_metric_families(body)
    return {(each.name, frozenset(each.labels.items())): each.value for one in families for each in one.samples}


def total(stack: Stack, name: str, **labels: str) -> float:
    """The sum over all processes that report the metric; a name that none reports is an error."""
    wanted = (name, frozenset(labels.items()))
    told = [page[wanted] for role in stack.roles.values() if role.running and wanted in (page := scrape(role))]
    assert told, f"nobody tells of {name} {labels}"
    return sum(told)


def test_a_successful_sign_up_is_counted_by_each_service(impatient: Stack):
    def counted() -> list[float]:
        return [
            *(
                total(impatient, "signup_verdicts_total", service=service, status="SUCCESS", kind="signUp")
                for service in SERVICES
            ),
            total(impatient, "eventbus_messages_total", topic="user.newUser.req", group="chat"),
            total(impatient, "eventbus_messages_total", topic="user.newUser.res", group="auth"),
        ]

    def published() -> list[int]:
        return [len(topic_of(impatient, topic)) for topic in ("user.newUser.req", "user.newUser.res")]

    before, earlier = counted(), published()
    person = new_person()
    assert sign_up(impatient, person.form)[-1].data["complete"]

    def is_counted() -> bool:
        # More than one request if the machine is so slow that the relay sends it again.
        requests, answers = (now - then for now, then in zip(published(), earlier, strict=True))
        assert requests >= 1
        assert answers >= len(PARTICIPANTS)
        more = [*(1 for _ in SERVICES), requests, answers]
        return counted() == [then + added for then, added in zip(before, more, strict=True)]

    eventually(is_counted, what="every verdict and every message is counted once")
    green = {"outcome": "green", "kind": "signUp"}
    assert total(impatient, "signup_complete_seconds_count", **green) >= 1
    assert 0 < total(impatient, "signup_complete_seconds_sum", **green) < 60

    refused = total(impatient, "signup_verdicts_total", service="auth", status="FAIL", kind="signUp")
    sign_up(impatient, new_person().form | {"userId": person.user_id})
    assert total(impatient, "signup_verdicts_total", service="auth", status="FAIL", kind="signUp") == refused + 1
    assert request(impatient, "POST", "/user", {"userId": ""}).status == 422
    assert total(impatient, "signup_problems_total", status="422") == 1


def test_a_dead_letter_is_counted_by_its_consumer_and_waits_in_the_table(impatient: Stack):
    aside = {"topic": "user.newUser.req", "group": "chat"}
    assert total(impatient, "eventbus_dead_letters_total", **aside) == 0, "so that the first is an increase"
    produce_invalid(impatient, "user.newUser.req", b"garbage", key="garbage")
    eventually(lambda: total(impatient, "eventbus_dead_letters_total", **aside) == 1)
    # Every participant's, in the table once the collector has them.
    eventually(lambda: total(impatient, "eventbus_dead_letters_waiting") == len(PARTICIPANTS))


def test_the_relays_metrics_show_stalled_sign_ups_and_unread_messages(impatient: Stack):
    with stopped(impatient, "chat"):
        assert request(impatient, "POST", "/user", new_person().form).status == 202
        eventually(lambda: total(impatient, "signup_incomplete", state="stalled") == 1)
        assert total(impatient, "signup_incomplete", state="due") == 0
        assert total(impatient, "signup_relayed_total") >= 1
        lag = {"topic": "user.newUser.req", "group": "chat"}
        eventually(lambda: total(impatient, "eventbus_lag_messages", **lag) >= 2)
    # The late answer.
    eventually(lambda: total(impatient, "signup_incomplete", state="stalled") == 0)


def test_every_role_has_process_metrics_and_every_worker_a_heartbeat_metric(impatient: Stack):
    for role in impatient.roles.values():
        page = scrape(role)
        assert page["process_open_fds", frozenset()] > 0
        if not role.name.startswith(("web", "auth-1", "auth-2")):
            assert 0 <= page["eventbus_heartbeat_age_seconds", frozenset()] < 30


def test_metrics_are_not_served_through_proxies(impatient: Stack):
    status, body = ask(impatient.roles["web"], X_Forwarded_For=LOOPBACK)
    assert (status, "process_open_fds" in body) == (404, False)
    if impatient.caddy:
        for path in ("/metrics", "//metrics", "/%6Detrics", "/METRICS", "/metrics/"):
            answer = request(impatient, "GET", path)
            assert answer.status == 404
            assert b"process_open_fds" not in answer.body
