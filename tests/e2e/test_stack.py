"""The installation as a whole: it starts, each role ends when it is asked to, and no process is left behind."""

import os
import time
import urllib.request

import pytest
import redis

from tests.chaos.test_leaks import page_client
from tests.client import request
from tests.conftest import new_person, new_stack
from tests.e2e.test_page import stopped
from tests.plugin import Backing
from tests.servers.process import http_status
from tests.stack import Stack
from tests.waiting import eventually

pytestmark = pytest.mark.needs("application")

# Seconds that each kind of key may live in Redis after its last change (docs/adr/0014).
LIFETIMES = {"signup": 3600, "front": 6, "traffic": 3600, "instance": 3600, "instances": 3600, "rate": 120}


def test_every_role_is_ready_and_the_form_is_served(stack: Stack):
    assert {name: http_status(role.port, "/health/live") for name, role in stack.roles.items()} == dict.fromkeys(
        stack.roles, 200
    )
    with urllib.request.urlopen(f"{stack.base_url}/signup/", timeout=30) as answer:
        assert 'name="userId"' in answer.read().decode()


def test_sigterm_ends_each_role_within_5_s_without_an_error_or_leftovers(backing: Backing):
    with new_stack(backing) as stack:
        assert [stack.rows(service) for service in ("auth", "chat", "customer")] == [set(), set(), set()]
        pids = {name: role.pid for name, role in stack.roles.items()}
        ends = {}
        for name, role in stack.roles.items():
            asked = time.monotonic()
            ends[name] = role.stop(), time.monotonic() - asked
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


def test_every_key_in_redis_expires(backing: Backing):
    with new_stack(backing, RATE_LIMIT_ADDRESS="1000") as stack, stopped(stack, "customer"):
        page_client(stack)
        assert request(stack, "POST", "/user", new_person().form).status == 202
        with redis.Redis.from_url(stack.redis.env["REDIS_URL"], decode_responses=True) as client:

            def kinds() -> dict[str, list[int]]:
                found: dict[str, list[int]] = {}
                for key in client.scan_iter():
                    # -2: it has just ended.
                    if (left := client.ttl(key)) != -2:
                        found.setdefault(key.partition(":")[0], []).append(left)
                return found

            lives = eventually(
                lambda: (now := kinds()).keys() >= LIFETIMES.keys() and now, what="there is one of each kind"
            )
    assert lives.keys() == LIFETIMES.keys()
    assert {kind: left for kind, left in lives.items() if not within(left, LIFETIMES[kind])} == {}


def within(left: list[int], lifetime: int) -> bool:
    return all(0 <= seconds <= lifetime for seconds in left)


def is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
