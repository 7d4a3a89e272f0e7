"""The relay as a separate process."""

import time
from pathlib import Path

import pytest

from tests.conftest import Person
from tests.e2e.test_api import post
from tests.servers import free_port
from tests.servers.process import LOOPBACK
from tests.stack import MANAGE, RoleProcess, Stack

pytestmark = pytest.mark.needs("application")


def test_the_relay_stops_in_time_without_an_error_while_kafka_is_down(stack: Stack, person: Person, tmp_path: Path):
    port = free_port()
    env = stack.env | {"KAFKA_BOOTSTRAP_SERVERS": f"{LOOPBACK}:1", "HEALTH_PORT": str(port)}
    stack.roles["relay"].stop()
    stack.roles["chat"].stop()
    try:
        assert post(stack, person.form).status == 202
        stack.query("auth", "UPDATE authsvc_signup SET next_due_at = '2020-01-01' WHERE next_due_at IS NOT NULL")
        relay = RoleProcess("relay", (*MANAGE, "relay_signups"), env=env, log=tmp_path / "relay.log", port=port)
        relay.start()
        asked = time.monotonic()
        assert relay.stop() == 0, relay.log()
        assert time.monotonic() - asked < 5
    finally:
        stack.roles["relay"].start()
        stack.roles["chat"].start()
