"""`manage.py replay_signups` on the whole installation: it heals lost rows, and leaves everything else unchanged."""

import os
import pty
import subprocess
import termios

import pytest

from tests.client import SERVICES, sign_up
from tests.conftest import Person, new_person
from tests.e2e.test_api import post, row, settled, state
from tests.servers.process import ROOT
from tests.stack import MANAGE, Stack
from tests.waiting import eventually

pytestmark = pytest.mark.needs("application")


def lose(stack: Stack, service: str, table: str, person: Person) -> None:
    assert row(person) in stack.rows(service)
    stack.query(service, f"DELETE FROM {table} WHERE email = '{person.email}'")
    assert row(person) not in stack.rows(service)


def test_a_participant_that_lost_its_rows_gets_them_back_and_no_light_changes(stack: Stack, person: Person):
    answer = post(stack, person.form)
    before = settled(stack, answer)
    lose(stack, "chat", "chatsvc_chatuser", person)
    lose(stack, "customer", "customersvc_customer", person)
    said = stack.manage("replay_signups", "--user-id", person.user_id).stdout
    assert said.strip() == "1 sent, 0 skipped, 0 failed"
    for service in SERVICES:
        eventually(lambda service=service: row(person) in stack.rows(service))
    assert state(stack, answer) == before


def test_a_replay_to_one_service_heals_only_that_service(stack: Stack, person: Person):
    answer = post(stack, person.form)
    settled(stack, answer)
    lose(stack, "chat", "chatsvc_chatuser", person)
    lose(stack, "customer", "customersvc_customer", person)
    stack.manage("replay_signups", "--id", answer.json["signupId"], "--service", "chat")
    eventually(lambda: row(person) in stack.rows("chat"))
    # Customer reads its topic in order: once it has this later one, it has passed over the replay.
    sign_up(stack, new_person().form)
    assert row(person) not in stack.rows("customer")
    stack.manage("replay_signups", "--id", answer.json["signupId"])
    eventually(lambda: row(person) in stack.rows("customer"))


def test_a_deactivated_user_stays_as_it_is(stack: Stack, person: Person):
    settled(stack, post(stack, person.form))
    stack.query("chat", f"UPDATE chatsvc_chatuser SET is_active = FALSE WHERE email = '{person.email}'")
    stack.manage("replay_signups", "--user-id", person.user_id)
    settled(stack, post(stack, new_person().form))
    [[active]] = stack.query("chat", f"SELECT is_active FROM chatsvc_chatuser WHERE email = '{person.email}'")
    assert not active


def test_unsent_events_are_reported_with_exit_code_1(stack: Stack, person: Person):
    settled(stack, post(stack, person.form))
    done = stack.manage(
        "replay_signups", "--user-id", person.user_id, check=False, KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1"
    )
    assert done.returncode == 1
    assert "0 sent, 0 skipped, 1 failed" in done.stdout
    assert "Check that Kafka is running" in done.stderr


def test_a_terminal_shows_progress(stack: Stack, person: Person):
    settled(stack, post(stack, person.form))
    terminal, inside = pty.openpty()
    termios.tcsetwinsize(inside, (24, 80))
    done = subprocess.run(
        [*MANAGE, "replay_signups", "--all"],
        env=stack.env, cwd=ROOT, stdout=subprocess.PIPE, stderr=inside, text=True, timeout=120, check=True,
    )  # fmt: skip
    os.close(inside)
    assert "100%" in os.read(terminal, 65536).decode()
    os.close(terminal)
    assert done.stdout.strip().endswith("skipped, 0 failed")
