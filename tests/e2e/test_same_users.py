"""The rows of all databases after a mix of everything, compared as full sets on a fresh installation."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from uuid import uuid4

import pytest

from signup_sync.participants import PARTICIPANTS
from tests.client import SERVICES, produce, sign_up, topic_of
from tests.conftest import Person, new_person
from tests.e2e.test_api import requested, row
from tests.stack import Stack
from tests.waiting import eventually

pytestmark = pytest.mark.needs("application")

REQUESTS, ANSWERS = "user.newUser.req", "user.newUser.res"


def test_the_services_hold_the_same_users_after_a_mix_of_everything(fresh_stack: Stack):
    people = [new_person() for _ in range(24)]
    known_to_chat, lacked_by_customer = people[0], people[1]
    # Chat has one of them, and another's userId with an email that auth will never hear of.
    other = replace(new_person(), user_id=people[2].user_id)
    for person in (known_to_chat, other):
        produce(fresh_stack, REQUESTS, requested(person, services=["chat"]), key=person.user_id)
    eventually(lambda: fresh_stack.rows("chat") == {row(known_to_chat), row(other)})

    sign_up_twice_at_once(fresh_stack, people)
    fresh_stack.query("customer", f"DELETE FROM customersvc_customer WHERE email = '{lacked_by_customer.email}'")
    strangers = [replace(new_person(), user_id=person.user_id.upper()) for person in people[:8]]
    strangers += [replace(new_person(), email=person.email.upper()) for person in people[8:16]]
    sign_up_twice_at_once(fresh_stack, strangers)
    deliver_again(fresh_stack)
    fresh_stack.manage("replay_signups", "--all")

    everybody = {row(person) for person in people}
    wanted = {
        **dict.fromkeys(SERVICES, everybody),
        "chat": everybody - {row(people[2])} | {row(other)},
    }
    eventually(lambda: {service: fresh_stack.rows(service) for service in SERVICES} == wanted)
    [[signups, pending]] = fresh_stack.query("auth", "SELECT COUNT(*), SUM(pending_count) FROM authsvc_signup")
    assert (signups, pending) == (len(people) + len(strangers), 0)


def sign_up_twice_at_once(stack: Stack, people: Sequence[Person]) -> None:
    """Post each sign-up twice with the same key, all at the same time. Return when every stream has ended."""
    forms = [(person.form, str(uuid4())) for person in people] * 2
    with ThreadPoolExecutor(16) as threads:
        for states in threads.map(lambda each: sign_up(stack, each[0], Idempotency_Key=each[1]), forms):
            assert states[-1].data["complete"]


def deliver_again(stack: Stack) -> None:
    """Deliver every request again. Return when every participant has answered each of them again."""
    requests, answered = topic_of(stack, REQUESTS), len(topic_of(stack, ANSWERS))
    for message in requests:
        produce(stack, REQUESTS, message.value, key=(message.key or b"").decode())
    # A request to chat only is answered once.
    wanted = answered + sum(1 if b'"services"' in message.value else len(PARTICIPANTS) for message in requests)
    eventually(lambda: len(topic_of(stack, ANSWERS)) >= wanted, 60)
