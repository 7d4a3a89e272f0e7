"""A participant or one of its dependencies is down for a while: clients wait, and recovery needs no operator."""

import time
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.chaos.listeners import Listeners
from tests.client import topic_of
from tests.conftest import Person, new_person
from tests.e2e.test_api import ALL_GREEN, post, row, settled, state, statuses
from tests.e2e.test_page import keep_picture, shown, sign_up_in, stopped
from tests.plugin import Backing
from tests.servers import PostgresqlServer
from tests.servers.process import http_status
from tests.stack import Stack
from tests.waiting import eventually, must_hold

pytestmark = pytest.mark.needs("application", "caddy")

DEADLINE = 3.0
# Seconds for which the database is down: enough for several attempts, each with its connection timeout.
AWAY = 20.0


@pytest.fixture(scope="module")
def stack(backing: Backing) -> Iterator[Stack]:
    """An installation with a short deadline."""
    assert backing.postgresql
    assert backing.kafka
    with Stack.real(
        postgresql=backing.postgresql, kafka=backing.kafka, SIGNUP_DEADLINE=f"{DEADLINE}", RELAY_FIRST_PAUSE="1"
    ) as running:
        yield running


@pytest.fixture
def database_of_chat(stack: Stack) -> Iterator[PostgresqlServer]:
    """A separate server for chat."""
    chat, before = stack.roles["chat"], stack.env["CHAT_DATABASE_URL"]
    with PostgresqlServer() as server:
        chat.stop()
        stack.env["CHAT_DATABASE_URL"] = chat.env["CHAT_DATABASE_URL"] = server.env["CHAT_DATABASE_URL"]
        stack.manage("migrate_all", "--verbosity", "0")
        chat.start()
        yield server
        chat.stop()
        stack.env["CHAT_DATABASE_URL"] = chat.env["CHAT_DATABASE_URL"] = before
        chat.start()


def attempts(stack: Stack, person: Person) -> int:
    [(number,)] = stack.query("auth", f"SELECT attempts FROM authsvc_signup WHERE email = '{person.email}'")
    return number


@pytest.mark.needs("chromium")
def test_page_and_stream_report_delayed_at_the_deadline_and_continue_when_the_participant_is_back(
    page: Page, stack: Stack, person: Person
):
    other = new_person()
    with stopped(stack, "customer"), Listeners(stack) as listeners:
        listeners.follow([post(stack, other.form)])
        sign_up_in(page, person)
        panel = page.locator("#lights-panel")
        expect(panel).to_have_attribute("data-outcome", "delayed")
        expect(page.locator("[data-service=customer]")).to_have_attribute("data-status", "PENDING")
        assert "FAIL" not in str(shown(page))
        [listener] = listeners.all
        eventually(lambda: listener.is_delayed, what="the stream says delayed")
        assert listener.is_open
        before = attempts(stack, person)
        eventually(lambda: attempts(stack, person) > before + 1, what="the relay asks again and again")
        stack.roles["customer"].start()
        # The page is still open, and nobody touches it.
        page.wait_for_url("**/login/")
        assert shown(page)[-1] == ALL_GREEN
        listeners.wait_for_the_end()
        listener.assert_saw_all(ALL_GREEN)
        assert listener.losses == 0
    assert {row(person), row(other)} <= stack.rows("customer")


@pytest.mark.needs("chromium")
def test_the_page_says_that_it_cannot_see_the_sign_up_while_auth_is_down(page: Page, stack: Stack, person: Person):
    notice = page.locator("#notice")
    with stopped(stack, "customer"):
        sign_up_in(page, person)
        expect(page.locator("[data-service=chat]")).to_have_attribute("data-status", "SUCCESS")
        with stopped(stack, "auth-1"), stopped(stack, "auth-2"):
            expect(notice).to_contain_text("We cannot check the progress right now")
            keep_picture(page, "unseen.png")
        expect(notice).not_to_contain_text("We cannot check the progress right now")
    page.wait_for_url("**/login/")
    assert shown(page)[-1] == ALL_GREEN


def test_a_participant_waits_for_its_database_and_dead_letters_nothing(
    stack: Stack, database_of_chat: PostgresqlServer, person: Person
):
    chat = stack.roles["chat"]
    people = [person, *(new_person() for _ in range(9))]
    assert statuses(settled(stack, post(stack, people[0].form))) == ALL_GREEN
    written = len(chat.log())
    database_of_chat.kill()
    back_at = time.monotonic() + AWAY
    signups = [post(stack, each.form) for each in people[1:]]
    for signup in signups:
        eventually(lambda signup=signup: statuses(state(stack, signup))["customer"] == "SUCCESS")

    def has_tried_for_long() -> bool:
        must_hold(http_status(chat.port, "/health/live") == 200, "it is alive while it waits")
        return time.monotonic() > back_at

    eventually(has_tried_for_long, 2 * AWAY)
    assert {statuses(state(stack, signup))["chat"] for signup in signups} == {"PENDING"}
    database_of_chat.start()
    for signup in signups:
        assert statuses(settled(stack, signup)) == ALL_GREEN
    log = chat.log()[written:]
    assert log.count("is retried in") >= 3
    assert "revoked partitions" not in log, "it polls on, and stays a member"
    assert topic_of(stack, "user.newUser.req.chat.dlt") == []
    assert stack.rows("chat") == {row(each) for each in people}
