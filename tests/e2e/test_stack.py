"""The installation as a whole: it starts, each role ends when it is asked to, and nothing stays behind."""

import os
import time
import urllib.request

import pytest

from tests.conftest import new_stack
from tests.plugin import Backing
from tests.servers.process import http_status
from tests.stack import Stack

pytestmark = pytest.mark.needs("application")


def test_every_role_is_ready_and_the_form_is_there(stack: Stack):
    assert {name: http_status(role.port, "/health/live") for name, role in stack.roles.items()} == dict.fromkeys(
        stack.roles, 200
    )
    with urllib.request.urlopen(f"{stack.base_url}/signup/", timeout=10) as answer:
        assert 'name="userId"' in answer.read().decode()


def test_sigterm_ends_each_role_within_5_s_without_an_error_and_nothing_stays(backing: Backing):
    with new_stack(backing) as stack:
        assert [stack.rows(service) for service in ("auth", "chat", "customer")] == [set(), set(), set()]
        pids = {name: role.pid for name, role in stack.roles.items()}
        ends = {}
        for name, role in stack.roles.items():
            asked = time.monotonic()
            ends[name] = role.stop(timeout=20), time.monotonic() - asked
    assert {name: code for name, (code, _) in ends.items()} == dict.fromkeys(pids, 0)
    assert {name: seconds for name, (_, seconds) in ends.items() if seconds > 5} == {}
    assert [name for name, pid in pids.items() if is_there(pid)] == []
    assert not stack.directory.exists()


def test_a_killed_role_comes_back_and_is_ready(stack: Stack):
    role = stack.roles["chat"]
    role.kill()
    assert role.exit_code == -9
    role.start()
    assert role.is_ready()


def is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
