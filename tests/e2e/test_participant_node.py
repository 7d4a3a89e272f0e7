"""examples/participant-node as the fourth light: a participant that shares no code with the others."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from confluent_kafka.admin import AdminClient, NewTopic
from playwright.sync_api import Browser, expect

from tests.client import SERVICES, Message, produce, produce_invalid, sign_up, topic_of
from tests.conftest import ARTIFACTS, Person, new_person, new_stack
from tests.e2e.test_account import log_in_at
from tests.e2e.test_api import requested
from tests.e2e.test_changes import change
from tests.e2e.test_page import lights, shown, sign_up_in
from tests.plugin import Backing
from tests.servers import PostgresqlServer
from tests.servers.node import EXAMPLE, INSTALLED
from tests.servers.process import Process
from tests.stack import Stack
from tests.waiting import PATIENCE, eventually

pytestmark = [pytest.mark.needs("application", "chromium", "kafka", "postgresql", "node")]

FOUR = dict.fromkeys((*SERVICES, "crm"), "SUCCESS")
COMMAND = ["node", EXAMPLE / "participant.js"]
NEW, CHANGE, REMOVAL = "user.newUser.req", "user.changeUser.req", "user.removeUser.req"


@pytest.fixture(scope="module")
def database(postgresql: PostgresqlServer) -> str:
    """The URL of an empty database."""
    name = f"crm_{uuid4().hex}"
    with psycopg.connect(postgresql.url("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return postgresql.url(name)


@pytest.fixture(scope="module")
def installation(backing: Backing) -> Iterator[Stack]:
    """An installation whose settings name a fourth service, which runs elsewhere."""
    with new_stack(backing, SIGNUP_SERVICES=",".join(FOUR)) as stack:
        yield stack


@pytest.fixture(scope="module", autouse=True)
def participant(installation: Stack, database: str) -> Iterator[Process]:
    env = {name: installation.env[name] for name in ("PATH", "KAFKA_BOOTSTRAP_SERVERS", "KAFKA_PREFIX")}
    env |= {"DATABASE_URL": database, "NODE_PATH": str(INSTALLED / "node_modules")}
    process = Process("crm", COMMAND, env=env, log=installation.directory / "crm.log")
    process.start()
    yield process
    print(process.log_tail())
    process.kill()


@pytest.fixture(scope="module")
def korean() -> Person:
    return replace(new_person(), user_id=f"김민아-{uuid4().hex[:8]}", user_name="김민아 🙂🇰🇷")


def account(database: str, owner: object) -> dict[str, Any] | None:
    """The row that the participant has of an account."""
    with psycopg.connect(database, row_factory=psycopg.rows.dict_row) as connection:
        return connection.execute("SELECT * FROM account WHERE owner_signup_id = %s", [str(owner)]).fetchone()


def owner_of(stack: Stack, person: Person) -> str:
    [[owner]] = stack.query("auth", f"SELECT owner_signup_id FROM authsvc_user WHERE email = '{person.email}'")
    return str(owner)


def decided_lights(stack: Stack, transaction: str) -> dict[str, str]:
    """The verdict of each service that has answered this sign-up, change or removal."""
    [[lights]] = stack.query("auth", f"SELECT lights FROM authsvc_signup WHERE id = '{transaction}'")
    return {service: light["status"] for service, light in lights.items() if light}


def ask(stack: Stack, topic: str, event: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Publish a request for the participant alone, and return all its answers to it so far."""
    name = "signupId" if topic == NEW else "changeId"
    before = answers(stack, topic, name, event[name])
    produce(stack, topic, {**event, "services": ["crm"]}, key=event["userId"] or event["ownerSignupId"])
    return eventually(
        lambda: found if len(found := answers(stack, topic, name, event[name])) > len(before) else None,
        what=f"an answer on {topic}",
    )


def answers(stack: Stack, topic: str, name: str, value: str) -> list[dict[str, Any]]:
    messages = [json.loads(each.value) for each in topic_of(stack, topic.replace(".req", ".res"))]
    return [each for each in messages if each.get(name) == value and each["service"] == "crm"]


def verdict(answer: Mapping[str, Any]) -> dict[str, Any]:
    return {name: answer[name] for name in ("status", "reason", "heldBy") if name in answer}


def changed(event: Mapping[str, Any], version: int, **fields: Any) -> dict[str, Any]:
    """A request for a change of the account that `event` asked about."""
    known = {name: value for name, value in event.items() if name != "signupId"}
    return known | {"changeId": str(uuid4()), "version": version, "active": True} | fields


def removed(event: Mapping[str, Any], version: int) -> dict[str, Any]:
    names = ("ownerSignupId", "userId", "occurredAt", "attempt")
    return {name: event[name] for name in names} | {"changeId": str(uuid4()), "version": version}


def test_the_node_participant_has_a_light_for_sign_up_change_and_removal(
    installation: Stack, database: str, browser: Browser, korean: Person
) -> None:
    page = browser.new_page(base_url=installation.base_url, locale="ko-KR")
    sign_up_in(page, korean)
    page.wait_for_url("**/login/**")
    assert shown(page)[-1] == FOUR
    owner = owner_of(installation, korean)
    row = account(database, owner)
    assert row is not None
    assert (row["user_id"], row["user_name"], row["version"]) == (korean.user_id, korean.user_name, 1)

    log_in_at(page, korean)
    change(page, korean, user_name="민아 🎉", email=f"new-{korean.email}")
    expect(page.locator("#lights-panel")).to_have_attribute("data-outcome", "green")
    assert lights(page) == FOUR
    page.screenshot(path=ARTIFACTS / "participant-node.png")
    page.close()
    row = account(database, owner)
    assert row is not None
    assert (row["email"], row["user_name"], row["version"]) == (f"new-{korean.email}", "민아 🎉", 2)

    *_, removal = installation.manage("forget", korean.user_id, "--yes").stdout.split()
    eventually(lambda: (account(database, owner) or {})["removed_at"], what="a tombstone")
    tombstone = account(database, owner)
    assert tombstone is not None
    assert {tombstone[name] for name in ("user_id", "user_id_key", "email", "user_name", "role")} == {None}
    eventually(lambda: decided_lights(installation, removal) == FOUR, what="every light of the removal is green")
    assert sign_up(installation, korean.form)[-1].statuses == FOUR


def test_a_removed_account_stays_removed(installation: Stack, database: str, person: Person) -> None:
    event = requested(person)
    ask(installation, NEW, event)
    assert [verdict(each) for each in ask(installation, REMOVAL, removed(event, 2))] == [{"status": "SUCCESS"}]
    assert verdict(ask(installation, NEW, event)[-1]) == {"status": "FAIL", "reason": "removed"}
    late = ask(installation, CHANGE, changed(event, 9))
    assert verdict(late[-1]) == {"status": "FAIL", "reason": "removed"}
    replay = removed(event, 2) | {"userId": ""}
    assert verdict(ask(installation, REMOVAL, replay)[-1]) == {"status": "SUCCESS"}
    assert (account(database, event["ownerSignupId"]) or {})["user_id"] is None


def test_a_redelivered_request_gets_the_same_answer(installation: Stack, database: str, person: Person) -> None:
    event = requested(person)
    ask(installation, NEW, event)
    first, second = ask(installation, NEW, event)
    assert verdict(first) == verdict(second) == {"status": "SUCCESS"}
    stranger = event | {"signupId": str(uuid4())}
    held = [{"ownerSignupId": event["ownerSignupId"], "version": 1}]
    assert verdict(ask(installation, NEW, stranger)[-1]) == {
        "status": "FAIL", "reason": "duplicate: userId", "heldBy": held,
    }  # fmt: skip


def test_the_case_of_an_id_does_not_matter(installation: Stack, person: Person) -> None:
    event = requested(person, ownerSignupId=str(uuid4()))
    upper = {name: event[name].upper() for name in ("signupId", "ownerSignupId")}
    produce(installation, NEW, event | upper | {"services": ["crm"]}, key=person.user_id)
    answer = eventually(lambda: answers(installation, NEW, "signupId", event["signupId"]), what="the answer")
    assert verdict(answer[-1]) == verdict(ask(installation, NEW, event)[-1]) == {"status": "SUCCESS"}


def test_only_a_newer_version_is_applied(installation: Stack, database: str, person: Person) -> None:
    event = requested(person)
    late = changed(event, 3, userName="Third", active=False)
    assert verdict(ask(installation, CHANGE, late)[-1]) == {"status": "SUCCESS"}
    assert verdict(ask(installation, NEW, event)[-1]) == {"status": "SUCCESS"}
    assert verdict(ask(installation, CHANGE, changed(event, 2, userName="Second"))[-1]) == {"status": "SUCCESS"}
    row = account(database, event["ownerSignupId"])
    assert row is not None
    assert (row["user_name"], row["active"], row["version"]) == ("Third", False, 3)


def test_accounts_in_the_way_are_named_and_two_that_exchange_a_key_both_get_it(
    installation: Stack, database: str, person: Person
) -> None:
    first, second = requested(person), requested(new_person())
    for event in (first, second):
        ask(installation, NEW, event)
    same_address = requested(new_person(), email=first["email"])
    by_first = [{"ownerSignupId": first["ownerSignupId"], "version": 1}]
    refusal = {"status": "FAIL", "reason": "duplicate: email", "heldBy": by_first}
    assert verdict(ask(installation, NEW, same_address)[-1]) == refusal
    assert account(database, same_address["ownerSignupId"]) is None

    to_second, to_first = changed(first, 2, userId=second["userId"]), changed(second, 2, userId=first["userId"])
    by_second = [{"ownerSignupId": second["ownerSignupId"], "version": 1}]
    refusal = {"status": "FAIL", "reason": "duplicate: userId", "heldBy": by_second}
    assert verdict(ask(installation, CHANGE, to_second)[-1]) == refusal
    assert verdict(ask(installation, CHANGE, to_first)[-1]) == {"status": "SUCCESS"}
    assert verdict(ask(installation, CHANGE, to_second)[-1]) == {"status": "SUCCESS"}


@pytest.mark.parametrize(("one", "other", "are_equal"), [("asli", "aslı", False), ("gross", "GROẞ", True)])
def test_user_ids_are_compared_as_in_auth(installation: Stack, one: str, other: str, are_equal: bool) -> None:
    unique = uuid4().hex[:8]
    first, second = (requested(new_person()) | {"userId": f"{name}{unique}"} for name in (one, other))
    ask(installation, NEW, first)
    answer = verdict(ask(installation, NEW, second)[-1])
    assert (answer.get("reason") == "duplicate: userId") is are_equal


NO_VERSION = json.dumps(requested(new_person(), services=["crm"], version="one")).encode()


@pytest.mark.parametrize(
    "value", [b"\xff\xfe", b"{}", b"[]", b"null", NO_VERSION], ids=["bytes", "object", "list", "null", "version"]
)
def test_an_unreadable_message_is_dead_lettered(installation: Stack, person: Person, value: bytes) -> None:
    key = uuid4().hex
    produce_invalid(installation, NEW, value, key=key, traceparent="kept")

    def letters() -> list[Message]:
        return [each for each in topic_of(installation, f"{NEW}.crm.dlt") if each.key == key.encode()]

    [letter] = eventually(letters, what="a dead letter")
    assert letter.value == value
    assert letter.headers["traceparent"] == b"kept"
    assert letter.headers["dlt-topic"].decode() == installation.env["KAFKA_PREFIX"] + NEW
    assert letter.headers["dlt-group"].decode() == installation.env["KAFKA_PREFIX"] + "crm"
    assert verdict(ask(installation, NEW, requested(person))[-1]) == {"status": "SUCCESS"}


def test_after_a_kill_the_participant_handles_the_messages_that_waited(
    installation: Stack, participant: Process, person: Person
) -> None:
    participant.kill()
    event = requested(person)
    produce(installation, NEW, event | {"services": ["crm"]}, key=person.user_id)
    participant.start()
    eventually(lambda: answers(installation, NEW, "signupId", event["signupId"]), what="the answer after the restart")


def test_a_participant_that_starts_before_the_topics_exist_waits_for_them(
    installation: Stack, participant: Process, database: str, person: Person
) -> None:
    prefix = f"{installation.env['KAFKA_PREFIX']}early."
    env = participant.env | {"KAFKA_PREFIX": prefix}
    early = Process("early", COMMAND, env=env, log=installation.directory / "early.log")
    early.start()
    try:
        eventually(lambda: "Not ready yet" in early.log(), what="the participant reports that it waits")
        admin = AdminClient({"bootstrap.servers": installation.env["KAFKA_BOOTSTRAP_SERVERS"]})
        topics = [NewTopic(f"{prefix}{name}", 1) for name in (NEW, CHANGE, REMOVAL)]
        for created in admin.create_topics(topics).values():
            created.result(PATIENCE)
        event = requested(person)
        produce(installation, f"early.{NEW}", event, key=person.user_id, ce_type=NEW)
        eventually(lambda: account(database, event["ownerSignupId"]), what="the account is saved")
    finally:
        early.kill()
