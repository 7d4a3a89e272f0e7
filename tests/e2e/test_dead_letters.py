"""A message that a participant can't store is dead-lettered, found by the operator, and replayed after the repair."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from signup_sync.participants import PARTICIPANTS
from tests.client import SERVICES, produce_invalid, topic_of
from tests.conftest import Person, new_person
from tests.e2e.test_api import ALL_GREEN, post, row, settled, state, statuses
from tests.stack import Stack
from tests.waiting import eventually

pytestmark = pytest.mark.needs("application")

CHAT_ALONE_ORANGE = ALL_GREEN | {"chat": "PENDING"}


@contextmanager
def refusing(stack: Stack, user_id: str) -> Iterator[None]:
    """Chat's database refuses the row of this user, like one whose schema is older than its program."""
    if "CHAT_DATABASE_URL" in stack.env:
        begin = f"ALTER TABLE chatsvc_chatuser ADD CONSTRAINT refused CHECK (user_id <> '{user_id}') NOT VALID"
        end = "ALTER TABLE chatsvc_chatuser DROP CONSTRAINT refused"
    else:
        begin = (
            f"CREATE TRIGGER refused BEFORE INSERT ON chatsvc_chatuser WHEN NEW.user_id = '{user_id}' "
            "BEGIN SELECT RAISE(ABORT, 'refused'); END"
        )
        end = "DROP TRIGGER refused"
    stack.query("chat", begin, as_owner=True)
    try:
        yield
    finally:
        stack.query("chat", end, as_owner=True)


@contextmanager
def without_relay(stack: Stack) -> Iterator[None]:
    """So that no attempt of the relay can turn a light."""
    relay = stack.roles["relay"]
    relay.stop()
    try:
        yield
    finally:
        relay.start()


def letters(stack: Stack, *filters: str) -> list[list[str]]:
    """The lines of the list, split into words, without its header and its counts."""
    lines = stack.manage("dead_letters", "list", *filters).stdout.splitlines()
    return [line.split() for line in lines[1:-1]]


def letter_of(stack: Stack, person: Person, *filters: str) -> list[str] | None:
    return next((words for words in letters(stack, *filters) if person.user_id in words), None)


def test_a_replay_after_the_fault_is_fixed_turns_the_light_of_the_same_sign_up(stack: Stack, person: Person):
    with without_relay(stack):
        with refusing(stack, person.user_id):
            answer = post(stack, person.form)
            waiting = (
                "--group",
                "chat",
                "--topic",
                "user.newUser.req",
                "--state",
                "waiting",
                "--error",
                "IntegrityError",
            )
            letter = eventually(lambda: letter_of(stack, person, *waiting), what="the letter is listed")
            # The poison stopped neither its neighbours in chat's topic nor the other services.
            assert statuses(settled(stack, post(stack, new_person().form))) == ALL_GREEN
            eventually(lambda: statuses(state(stack, answer)) == CHAT_ALONE_ORANGE)
            # Nothing has changed yet, so the replayed message comes back, as another letter.
            stack.manage("dead_letters", "replay", letter[0])
            again = eventually(lambda: letter_of(stack, person, *waiting), what="the replayed message is dead-lettered")
            assert int(again[0]) > int(letter[0])
            assert statuses(state(stack, answer)) == CHAT_ALONE_ORANGE
        shown = stack.manage("dead_letters", "show", again[0]).stdout
        assert "django.db.utils.IntegrityError" in shown
        assert "refused" in shown
        assert f'"signupId": "{answer.json["signupId"]}"' in shown
        assert "ce_type: user.newUser.req" in shown
        assert person.password not in shown
        assert stack.manage("dead_letters", "replay", again[0]).stdout.startswith("1 replayed")
        assert statuses(settled(stack, answer)) == ALL_GREEN
    for service in SERVICES:
        assert row(person) in stack.rows(service)
    assert letter_of(stack, person, "--state", "waiting") is None
    done = stack.manage("dead_letters", "replay", again[0], check=False)
    assert done.returncode == 1
    assert "It has already been replayed." in done.stderr


def test_a_replay_changes_nothing_for_the_services_that_had_handled_the_message(stack: Stack, person: Person):
    with without_relay(stack):
        with refusing(stack, person.user_id):
            answer = post(stack, person.form)
            letter = eventually(lambda: letter_of(stack, person), what="the letter is listed")
            eventually(lambda: statuses(state(stack, answer)) == CHAT_ALONE_ORANGE)
        stack.manage("dead_letters", "replay", letter[0])
        settled(stack, answer)
        before = {service: stack.rows(service) for service in SERVICES}
        stack.manage("dead_letters", "replay", letter[0], "--again")
        # Both read their topic in order: once they have this later one, they have passed over the replay.
        later = new_person()
        settled(stack, post(stack, later.form))
    assert {service: stack.rows(service) - {row(later)} for service in SERVICES} == before
    assert statuses(state(stack, answer)) == ALL_GREEN


def test_garbage_in_a_topic_is_listed_and_discarded_and_the_next_is_handled(stack: Stack, person: Person):
    garbage = person.user_id
    produce_invalid(stack, "user.newUser.res", b"\xff\x00 no JSON", key=garbage)
    letter = eventually(lambda: letter_of(stack, person, "--group", "auth"), what="the garbage is listed")
    assert "Value, 10 bytes:" in stack.manage("dead_letters", "show", letter[0]).stdout
    stack.manage("dead_letters", "discard", letter[0], "--reason", "a test put it there")
    assert "a test put it there" in stack.manage("dead_letters", "show", letter[0]).stdout
    assert letter_of(stack, person, "--state", "waiting") is None
    assert any(message.key == garbage.encode() for message in topic_of(stack, "user.newUser.res.auth.dlt"))
    assert statuses(settled(stack, post(stack, person.form))) == ALL_GREEN


def test_letters_that_came_while_the_collector_was_down_are_found_when_it_is_back(stack: Stack, person: Person):
    def groups() -> set[str]:
        return {words[4] for words in letters(stack) if person.user_id in words}

    collector = stack.roles["dead-letters"]
    collector.kill()
    produce_invalid(stack, "user.newUser.req", b"no JSON", key=person.user_id)
    eventually(lambda: any(m.key == person.user_id.encode() for m in topic_of(stack, "user.newUser.req.chat.dlt")))
    collector.start()
    eventually(lambda: groups() == {*PARTICIPANTS}, what="the letters of every group are listed")
