"""A sign-up that has used up its attempts: it stays orange and is reported as delayed, an administrator sees it, and a
replay turns its light once the participant is back.
"""

from collections.abc import Iterator

import pytest
from confluent_kafka import Consumer, KafkaError
from playwright.sync_api import Browser, expect

from tests.broker import PARTITIONS
from tests.client import SERVICES, ServerEvent, events, opened, request
from tests.conftest import Person, new_person, new_stack
from tests.e2e.test_api import log_in, row
from tests.e2e.test_dead_letters import CHAT_ALONE_ORANGE
from tests.e2e.test_page import GREEN, shown, sign_up_in, stopped, wait_for_lights
from tests.plugin import Backing
from tests.stack import Stack
from tests.waiting import eventually

pytestmark = pytest.mark.needs("application", "chromium")


@pytest.fixture(scope="module")
def impatient(backing: Backing) -> Iterator[Stack]:
    """An application that stalls sign-ups early: after two attempts, half a second apart."""
    with new_stack(
        backing,
        RELAY_MAX_ATTEMPTS="2",
        RELAY_FIRST_PAUSE="0.5",
        RELAY_MAX_PAUSE="0.5",
        SIGNUP_DEADLINE="2",
        # A stream that never ends would never fail its test.
        STREAM_MAX_AGE="90",
    ) as stack:
        yield stack


def stalled(stack: Stack) -> set[str]:
    rows = stack.query(
        "auth", "SELECT user_id FROM authsvc_signup WHERE stalled_at IS NOT NULL AND next_due_at IS NULL"
    )
    return {user_id for (user_id,) in rows}


def incomplete(stack: Stack) -> list[tuple[object, ...]]:
    return stack.query("auth", "SELECT user_id FROM authsvc_signup WHERE pending_count > 0")


def lose_requests(stack: Stack, group: str) -> None:
    """Consume all waiting messages as a member of the group, without handling them. The group's consumers must be
    stopped.
    """
    prefix = stack.env["KAFKA_PREFIX"]
    consumer = Consumer(
        {
            "bootstrap.servers": stack.env["KAFKA_BOOTSTRAP_SERVERS"],
            "group.id": prefix + group,
            "session.timeout.ms": 6000,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 20,
            "log_level": 2,
        }
    )
    try:
        consumer.subscribe([prefix + "user.newUser.req"])
        ended: set[int] = set()
        while len(ended) < PARTITIONS:
            message = consumer.poll(30)
            assert message is not None, "the topic was not read to its end"
            if message.error():
                assert message.error().code() == KafkaError._PARTITION_EOF, message.error()
                ended.add(message.partition())
        consumer.commit(asynchronous=False)
    finally:
        consumer.close()


def admin_of(stack: Stack) -> str:
    """The session of a new administrator, as a Cookie header."""
    staff = new_person()
    stack.manage(
        "createsuperuser", "--noinput", "--user_id", staff.user_id, "--email", staff.email,
        DJANGO_SUPERUSER_PASSWORD=staff.password,
    )  # fmt: skip
    return "; ".join(f"{name}={value}" for name, value in log_in(stack, staff).items())


def read_until_delayed(stream: Iterator[ServerEvent], lights: dict[str, str]) -> None:
    """Read until the stream has both reported the sign-up as delayed and shown these lights, in either order."""
    is_delayed = is_shown = False
    for event in stream:
        if event.kind == "status":
            is_shown = event.statuses == lights
        elif event.kind == "delayed":
            is_delayed = True
        if is_delayed and is_shown:
            return
    raise AssertionError(f"the stream ended: delayed {is_delayed}, shown {is_shown}")


def test_a_stalled_sign_up_is_delayed_seen_in_the_admin_and_taken_up_by_a_replay(impatient: Stack, person: Person):
    chat = impatient.roles["chat"]
    # An administrator's account is published like any other. It would stall, too, while chat is stopped, and may have
    # stalled before if the consumers' first messages take longer than two attempts.
    cookie = admin_of(impatient)
    eventually(lambda: not incomplete(impatient), what="every service has the administrator")
    with (
        stopped(impatient, "chat"),
        opened(impatient, "POST", "/user", person.form, Accept="text/event-stream") as response,
    ):
        stream = events(response)
        read_until_delayed(stream, CHAT_ALONE_ORANGE)
        eventually(lambda: person.user_id in stalled(impatient), what="the sign-up is stalled")

        for lights_of in ("stalled", "pending"):
            page = request(impatient, "GET", f"/admin/authsvc/eventtransaction/?lights={lights_of}", Cookie=cookie)
            assert person.user_id in page.body.decode()
        complete = request(impatient, "GET", "/admin/authsvc/eventtransaction/?lights=complete", Cookie=cookie)
        assert complete.status == 200
        assert person.user_id not in complete.body.decode()

        lose_requests(impatient, "chat")
        chat.start()
        assert person.user_id in stalled(impatient)
        said = impatient.manage("replay_signups", "--stalled").stdout
        assert said.strip() == "1 sent, 0 skipped, 0 failed"
        end = list(stream)[-1]
    assert (end.statuses, end.data["complete"], end.data["changed"]) == (
        dict.fromkeys(SERVICES, "SUCCESS"), True, ["chat"],
    )  # fmt: skip
    assert row(person) in impatient.rows("chat")
    assert stalled(impatient) == set()


def test_an_open_page_reports_that_the_sign_up_is_stalled_and_then_its_completion(
    impatient: Stack, browser: Browser, person: Person
):
    context = browser.new_context(base_url=impatient.base_url, locale="en-US")
    page = context.new_page()
    with stopped(impatient, "customer"):
        sign_up_in(page, person)
        eventually(lambda: person.user_id in stalled(impatient), what="the sign-up is stalled")
        expect(page.locator("#lights-panel")).to_have_attribute("data-outcome", "stalled")
        expect(page.locator("#announcement")).to_have_text("A service is not responding")
        expect(page.locator("[data-service=chat]")).to_have_attribute("data-status", "SUCCESS")
        wait_for_lights(page, GREEN | {"customer": "PENDING"})
        lose_requests(impatient, "customer")
    assert person.user_id in stalled(impatient)
    impatient.manage("replay_signups", "--stalled")
    page.wait_for_url("**/login/")
    assert shown(page)[-1] == GREEN
    context.close()


def test_a_late_answer_turns_the_light_of_a_stalled_sign_up_without_a_replay(impatient: Stack, person: Person):
    chat = impatient.roles["chat"]
    with (
        stopped(impatient, "chat"),
        opened(impatient, "POST", "/user", person.form, Accept="text/event-stream") as response,
    ):
        stream = events(response)
        read_until_delayed(stream, CHAT_ALONE_ORANGE)
        eventually(lambda: person.user_id in stalled(impatient), what="the sign-up is stalled")
        chat.start()
        end = list(stream)[-1]
    assert end.statuses == dict.fromkeys(SERVICES, "SUCCESS")
    assert stalled(impatient) == set()
