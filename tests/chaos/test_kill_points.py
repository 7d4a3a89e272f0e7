"""A process dies at the worst moment of its work, and every sign-up still ends correctly.

Each test disables every other repair of the sign-up, so that only the tested one remains.
"""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
import redis
from playwright.sync_api import Page, expect

from tests.chaos.breaks_at import start_breaking
from tests.chaos.listeners import Listeners
from tests.client import SERVICES, Answer, sign_up, topic_of
from tests.conftest import Person, new_person
from tests.e2e.test_api import ALL_GREEN, post, row, settled, state, statuses
from tests.e2e.test_page import shown, sign_up_in, stopped, wait_for_flag
from tests.plugin import Backing
from tests.servers import free_port
from tests.stack import TABLES, RoleProcess, Stack, UserRow
from tests.waiting import eventually

pytestmark = pytest.mark.needs("application", "caddy")


@pytest.fixture(scope="module")
def stack(backing: Backing) -> Iterator[Stack]:
    """For these tests only: no other message reaches a process that is about to die. Nothing is retried on its own
    within ten minutes.
    """
    assert backing.postgresql
    assert backing.kafka
    with Stack.real(postgresql=backing.postgresql, kafka=backing.kafka, STREAM_HEARTBEAT="600") as running:
        yield running


@pytest.fixture
def people(stack: Stack, person: Person) -> Iterator[list[Person]]:
    """The people who sign up in the test, including `person`. At the end every service knows all of them and nobody
    else, and every role runs.
    """
    before = {service: stack.rows(service) for service in SERVICES}
    everybody = [person]
    yield everybody
    for role in stack.roles.values():
        if not role.running:
            role.start()
    new = {service: stack.rows(service) - before[service] for service in SERVICES}
    expected: set[UserRow] = {row(each) for each in everybody}
    assert new == dict.fromkeys(SERVICES, expected)


def restart_dying(role: RoleProcess, path: str, when: str) -> RoleProcess:
    role.stop()
    start_breaking(role, path, f"dies-{when}")
    return role


def wait_for_death(role: RoleProcess) -> None:
    eventually(lambda: role.exit_code == -9, what=f"{role.name} kills itself")


def kept_lights(stack: Stack, person: Person) -> dict[str, str]:
    """The row of a person's only sign-up in auth's database."""
    [(document,)] = stack.query("auth", f"SELECT lights FROM authsvc_signup WHERE email = '{person.email}'")
    return {service: light.get("status", "PENDING") for service, light in document.items()}


def copied_lights(stack: Stack, signup: Answer) -> dict[str, str]:
    """The copy of the projection in Redis."""
    with redis.Redis.from_url(stack.redis.env["REDIS_URL"]) as client:
        copy = json.loads(client.hget(signup.headers["Location"].replace("/user/signups/", "signup:"), "s"))
    return {service: light.get("status", "PENDING") for service, light in copy["lights"].items()}


def messages(stack: Stack, topic: str, **fields: str) -> list[dict[str, Any]]:
    """The messages of a topic with these fields."""
    documents = [json.loads(message.value) for message in topic_of(stack, topic)]
    return [document for document in documents if document | fields == document]


def answers_of(stack: Stack, service: str, person: Person) -> list[str]:
    found = messages(stack, "user.newUser.res", service=service, userId=person.user_id)
    return [answer["status"] for answer in found]


def test_nothing_is_lost_if_auth_is_killed_between_commit_and_publish(
    stack: Stack, person: Person, people: list[Person]
):
    key = str(uuid4())
    auth, relay = stack.roles["auth-1"], stack.roles["relay"]
    with stopped(stack, "auth-2", "relay"):
        restart_dying(auth, "authsvc.signups.writer.register_new_users", "after")
        assert post(stack, person.form, Idempotency_Key=key).status == 502
        wait_for_death(auth)
        auth.start()
        # Without the relay it stays pending: no service was asked, while another sign-up completes.
        people.append(new_person())
        assert sign_up(stack, people[-1].form)[-1].statuses == ALL_GREEN
        assert messages(stack, "user.newUser.req", userId=person.user_id) == []
        assert kept_lights(stack, person) == dict.fromkeys(SERVICES, "PENDING") | {"auth": "SUCCESS"}
        relay.start()
        # A client without an answer retries, and joins its sign-up.
        assert sign_up(stack, person.form, Idempotency_Key=key)[-1].statuses == ALL_GREEN
    assert [event["attempt"] for event in messages(stack, "user.newUser.req", userId=person.user_id)] == [2]


def test_nothing_is_lost_if_a_participant_is_killed_between_commit_and_answer(
    stack: Stack, person: Person, people: list[Person]
):
    with stopped(stack, "relay"):
        chat = restart_dying(stack.roles["chat"], "eventbus.consumer.EventProducer.send_all", "before")
        signup = post(stack, person.form)
        wait_for_death(chat)
        assert row(person) in stack.rows("chat")
        assert answers_of(stack, "chat", person) == []
        assert statuses(state(stack, signup))["chat"] == "PENDING"
        chat.start()
        assert statuses(settled(stack, signup)) == ALL_GREEN
        assert answers_of(stack, "chat", person) == ["SUCCESS"]


def test_nothing_is_lost_if_a_participant_is_killed_between_answer_and_offset(
    stack: Stack, person: Person, people: list[Person]
):
    with stopped(stack, "relay"):
        chat = restart_dying(stack.roles["chat"], "eventbus.consumer.BatchConsumer.note_done", "after")
        signup = post(stack, person.form)
        wait_for_death(chat)
        before = settled(stack, signup)
        assert statuses(before) == ALL_GREEN
        assert answers_of(stack, "chat", person) == ["SUCCESS"]
        chat.start()
        # It reads the request again and finds its own row.
        eventually(lambda: answers_of(stack, "chat", person) == ["SUCCESS", "SUCCESS"])
    assert state(stack, signup) == before


def test_nothing_is_lost_if_a_participant_is_killed_between_healing_and_answer(
    stack: Stack, person: Person, people: list[Person]
):
    assert sign_up(stack, person.form)[-1].statuses == ALL_GREEN
    stack.query("chat", f"DELETE FROM {TABLES['chat']} WHERE email = '{person.email}'")
    chat = restart_dying(stack.roles["chat"], "eventbus.consumer.EventProducer.send_all", "before")
    heal = ("reconcile", "--heal", "--service", "chat", "--timeout", "60")
    with ThreadPoolExecutor(1) as other:
        healing = other.submit(stack.manage, *heal)
        wait_for_death(chat)
        assert row(person) in stack.rows("chat")
        chat.start()
        # It reads the page again and finds nothing left to heal: the command reports that everything agrees.
        assert healing.result().returncode == 0


def test_nothing_is_lost_if_the_results_consumer_is_killed_between_database_and_redis(
    stack: Stack, person: Person, people: list[Person]
):
    with stopped(stack, "relay", "customer"), Listeners(stack) as listeners:
        signup = post(stack, person.form)
        eventually(lambda: statuses(state(stack, signup)) == ALL_GREEN | {"customer": "PENDING"})
        listeners.follow([signup])
        results = restart_dying(stack.roles["auth-results"], "authsvc.signups.answers.apply_verdicts", "after")
        stack.roles["customer"].start()
        wait_for_death(results)
        assert kept_lights(stack, person) == ALL_GREEN
        # Redis has the old state, and the sign-up is no longer due: only the redelivered answer updates Redis.
        assert copied_lights(stack, signup) == ALL_GREEN | {"customer": "PENDING"}
        assert not listeners.all[0].is_complete
        results.start()
        eventually(lambda: copied_lights(stack, signup) == ALL_GREEN, what="Redis has the state, too")
        listeners.wait_for_the_end()
        listeners.all[0].assert_saw_all(ALL_GREEN)


@contextmanager
def second_web(stack: Stack) -> Iterator[RoleProcess]:
    """Another web process."""
    role = stack.add_web("web-2", free_port())
    role.start()
    try:
        yield role
    finally:
        stack.roles.pop("web-2").kill()


@pytest.mark.needs("chromium")
def test_another_process_takes_a_relay_over_if_the_front_is_killed(
    page: Page, stack: Stack, person: Person, people: list[Person]
):
    web = stack.roles["web"]
    with stopped(stack, "customer"), second_web(stack) as other:
        sign_up_in(page, person)
        expect(page.locator("[data-service=chat]")).to_have_attribute("data-status", "SUCCESS")
        # The same page in another tab, whose socket the other process holds; the first one relays.
        tab = page.context.new_page()
        tab.goto(f"http://127.0.0.1:{other.port}{urlsplit(page.url).path}")
        wait_for_flag(tab, "connected")
        web.kill()
        stack.roles["customer"].start()
        # Nobody clicks or reloads: the other process takes the relay over.
        tab.wait_for_url("**/login/")
        assert shown(tab)[-1] == ALL_GREEN
        web.start()
        page.wait_for_url("**/login/")
        assert shown(page)[-1] == ALL_GREEN


def test_streams_resume_at_another_instance_if_an_instance_of_auth_is_killed(
    stack: Stack, person: Person, people: list[Person]
):
    people += [new_person() for _ in range(4)]
    with stopped(stack, "customer"), Listeners(stack) as listeners:
        signups = [post(stack, each.form) for each in people]
        listeners.follow(signups * 4)
        stack.roles["auth-1"].kill()
        eventually(lambda: listeners.losses, what="streams are lost")
        eventually(lambda: listeners.are_open, what="all have a stream at the other instance")
        lost = [each for each in listeners.all if each.losses]
        # Auth sends only the states that they have not seen.
        stack.roles["customer"].start()
        listeners.wait_for_the_end()
        for each in listeners.all:
            each.assert_saw_all(ALL_GREEN)
    assert 0 < len(lost) < len(listeners.all)
