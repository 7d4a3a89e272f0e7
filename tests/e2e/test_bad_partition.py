"""Garbage among good messages, in every partition of both topics, before the real consumers."""

import json
from collections.abc import Iterator
from uuid import uuid4

import pytest
from pytest_django.fixtures import Settings

from eventbus.inspection.lag import LagReader
from signup_sync.participants import PARTICIPANTS
from tests.broker import put, put_with_unreadable_header
from tests.client import produce, produce_invalid, topic_of
from tests.conftest import new_person
from tests.e2e.test_api import ALL_GREEN, post, settled, statuses
from tests.garbage import ODD
from tests.stack import Stack
from tests.waiting import eventually

pytestmark = pytest.mark.needs("application")

REQUESTS, ANSWERS = "user.newUser.req", "user.newUser.res"
READERS = (*((REQUESTS, service) for service in PARTICIPANTS), (ANSWERS, "auth"))
# Embedded brokers keep a few megabytes of each partition.
SMALL = [value for value in ODD if len(value) < 20_000]


@pytest.fixture(autouse=True)
def _at_the_stacks_kafka(stack: Stack, patient: None, settings: Settings) -> None:
    settings.KAFKA_BOOTSTRAP_SERVERS = stack.env["KAFKA_BOOTSTRAP_SERVERS"]
    settings.KAFKA_PREFIX = stack.env["KAFKA_PREFIX"]


def spoil(run: str, partitions: range) -> Iterator[bytes]:
    """Put garbage into these partitions of both topics. Return the mark that each message has."""
    for partition in partitions:
        mark = f"{run} {partition}".encode()
        for topic in (REQUESTS, ANSWERS):
            put(topic, None, b"", b"\xff\xfe", *SMALL, partition=partition, garbage=mark, odd=b"\xff\xfe\0", none=None)
        yield mark


def test_good_messages_are_answered_bad_ones_dead_lettered_and_none_is_left_unread(stack: Stack):
    run = str(uuid4())
    count = len(SMALL) + 3
    before = [post(stack, new_person().form) for _ in range(2)]
    marks = [*spoil(run, range(2))]
    between = [post(stack, new_person().form) for _ in range(4)]
    marks += [*spoil(run, range(2, 4))]
    after = [post(stack, new_person().form) for _ in range(2)]

    for answer in (*before, *between, *after):
        assert statuses(settled(stack, answer)) == ALL_GREEN
    for topic, group in READERS:
        eventually(
            lambda topic=topic, group=group: marks_of(stack, topic, group, run) == dict.fromkeys(marks, count),
            what=f"all of the garbage is among {group}'s dead letters, once",
        )
    reader = LagReader()
    for topic, group in READERS:
        eventually(lambda topic=topic, group=group: reader.lag(topic, group) == 0, what=f"{group} has read all")
    assert all(role.running for role in stack.roles.values())


def marks_of(stack: Stack, topic: str, group: str, run: str) -> dict[bytes, int]:
    """The number of a group's dead letters for each mark of this run."""
    found: dict[bytes, int] = {}
    for letter in topic_of(stack, f"{topic}.{group}.dlt"):
        if (mark := letter.headers.get("garbage", b"")).startswith(run.encode()):
            found[mark] = found.get(mark, 0) + 1
    return found


@pytest.mark.parametrize(
    ("fields", "publish", "error"),
    [
        ({"service": "nobody"}, produce, "does not ask the service 'nobody'"),
        ({"signupId": str(uuid4())}, produce, "there is no sign-up"),
        ({"status": "FAIL", "reason": "a\0b"}, produce_invalid, "reason"),
    ],
    ids=["a service that nobody knows", "a sign-up that does not exist", "a reason that can't be kept"],
)
def test_an_answer_that_matches_no_light_is_dead_lettered_with_the_reason(stack, fields, publish, error):
    answer = post(stack, new_person().form)
    before = settled(stack, answer)
    key = f"misfit-{uuid4()}"
    fitting = {"signupId": before["signupId"], "userId": key, "service": "chat", "status": "SUCCESS"}
    value = json.dumps({**fitting, "occurredAt": "2026-01-01T00:00:00Z", **fields}).encode()
    publish(stack, ANSWERS, value, key=key)

    def letter() -> str | None:
        letters = topic_of(stack, f"{ANSWERS}.auth.dlt")
        return next((each.headers["dlt-message"].decode() for each in letters if each.key == key.encode()), None)

    assert error in eventually(letter, what="it is dead-lettered")
    assert settled(stack, answer) == before


def test_a_request_with_a_header_name_that_is_not_utf_8_is_handled(stack: Stack):
    person, signup_id = new_person(), str(uuid4())
    asked = {"signupId": signup_id, "ownerSignupId": signup_id, "role": "ROLE_USER", "attempt": 1}
    record = {name: value for name, value in person.form.items() if name != "userPw"}
    put_with_unreadable_header(REQUESTS, json.dumps(asked | record).encode())
    for service in PARTICIPANTS:
        eventually(lambda service=service: person.user_id in {row.user_id for row in stack.rows(service)}, what=service)
    assert statuses(settled(stack, post(stack, new_person().form))) == ALL_GREEN
