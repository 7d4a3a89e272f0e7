"""The health page of a role."""

import json
import re
import socket
import time
import urllib.error
import urllib.request

import pytest

from runtime.processes import health
from runtime.processes.health import Heartbeat, health_server


@pytest.fixture
def heartbeat() -> Heartbeat:
    return Heartbeat()


@pytest.fixture
def ask(heartbeat):
    with health_server(heartbeat, host="127.0.0.1", port=0) as port:

        def get(path: str) -> tuple[int, str]:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
                    return answer.status, json.load(answer)["status"]
            except urllib.error.HTTPError as error:
                with error:
                    return error.code, json.load(error)["status"]

        get.port = port
        yield get


def test_a_role_that_has_just_begun_is_live_but_not_ready(ask):
    assert ask("/health/live") == (200, "ok")
    assert ask("/health/ready") == (503, "not working yet")


def test_a_role_that_works_is_ready(ask, heartbeat):
    heartbeat.ready()
    assert ask("/health/ready") == (200, "ok")
    assert ask("/health/ready/") == (200, "ok")


def seconds_stuck(status: int, said: str) -> int:
    found = re.fullmatch(r"stuck for (\d+) s", said)
    assert status == 503
    assert found, said
    return int(found[1])


def test_a_role_without_a_heartbeat_is_neither_live_nor_ready(ask, heartbeat, monkeypatch):
    heartbeat.ready()
    monkeypatch.setattr(health, "BEAT_WITHIN", -1.0)
    assert seconds_stuck(*ask("/health/live")) >= 0
    assert seconds_stuck(*ask("/health/ready")) >= 0
    monkeypatch.undo()
    assert ask("/health/live") == (200, "ok")


def test_unknown_paths_are_404(ask):
    assert ask("/")[0] == 404


def test_a_silent_client_does_not_delay_other_clients(ask):
    with socket.create_connection(("127.0.0.1", ask.port)):
        assert ask("/health/live") == (200, "ok")


def test_a_port_in_use_is_an_error(ask, heartbeat):
    with pytest.raises(OSError, match="in use"), health_server(heartbeat, host="127.0.0.1", port=ask.port):
        pass


def test_a_role_of_several_loops_is_ready_when_all_are(ask, heartbeat):
    one, other = heartbeat.parts(2)
    one.ready()
    assert ask("/health/ready") == (503, "not working yet")
    other.ready()
    assert ask("/health/ready") == (200, "ok")


def test_one_stuck_loop_of_several_is_a_stuck_role(ask, heartbeat, monkeypatch):
    one, other = heartbeat.parts(2)
    one.ready()
    other.ready()
    monkeypatch.setattr(health, "BEAT_WITHIN", 5.0)
    monkeypatch.setattr(other, "_last", time.monotonic() - 7)
    one.beat()
    heartbeat.beat()
    assert seconds_stuck(*ask("/health/live")) >= 7
    assert seconds_stuck(*ask("/health/ready")) >= 7
