"""The registry of running processes in Redis, and the page that shows it."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
import redis
from django.conf import settings
from django.test import Client

from authsvc.api.application import SignUpApi
from runtime.processes import health, instances
from runtime.processes.health import Heartbeat
from runtime.processes.instances import INDEX, InstanceReport, RunningInstance, Standing, read_instances
from signup_sync.management.commands.serve import Server, config
from signup_sync.server.web_instance import WebInstance
from tests.servers.process import Process, free_port
from tests.users import client_with
from tests.waiting import eventually, eventually_async, must_hold

pytestmark = pytest.mark.needs("redis")

PAGE = "/admin/eventbus/instance/"
SCRIPT = "<script>alert(1)</script>"


@pytest.fixture(autouse=True)
def nobody_else(monkeypatch) -> Iterator[None]:
    """Fast heartbeats, and no process but the test's."""
    monkeypatch.setattr(instances, "TOLD_EVERY", 0.05)
    with redis.Redis.from_url(settings.REDIS_URL) as client:
        client.delete(INDEX)
        yield
        client.delete(INDEX)


@pytest.fixture
def heartbeat() -> Heartbeat:
    return Heartbeat()


def the_one() -> RunningInstance | None:
    seen = read_instances()
    must_hold(len(seen) <= 1, "no process is shown twice")
    return seen[0] if seen else None


def is_shown_as(standing: Standing) -> bool:
    seen = the_one()
    return seen is not None and seen.standing is standing


def test_a_process_reports_its_identity_and_its_state(heartbeat):
    with InstanceReport("relay", heartbeat, address="127.0.0.1:8001") as report:
        eventually(lambda: is_shown_as(Standing.STARTING))
        heartbeat.ready()
        eventually(lambda: is_shown_as(Standing.IN_ROTATION))
        told = the_one().status
        assert (told.role, told.host, told.pid) == ("relay", socket.gethostname(), os.getpid())
        assert (told.address, told.version) == ("127.0.0.1:8001", settings.VERSION)
        assert abs((datetime.now(UTC) - told.since).total_seconds()) < 60
        report.show_draining()
        eventually(lambda: is_shown_as(Standing.DRAINING))
    assert the_one() is None


def test_the_reported_heartbeat_is_that_of_the_work_and_not_of_the_reporting_thread(heartbeat, monkeypatch):
    heartbeat.ready()
    monkeypatch.setattr(health, "BEAT_WITHIN", 0.3)
    with InstanceReport("stuck", heartbeat):
        eventually(lambda: is_shown_as(Standing.STUCK))
        eventually(lambda: (seen := the_one()) and seen.beat_age > 0.5)
        monkeypatch.undo()
        heartbeat.beat()
        eventually(lambda: is_shown_as(Standing.IN_ROTATION))


def test_a_process_that_died_is_shown_as_gone_and_then_forgotten(heartbeat, monkeypatch):
    report = InstanceReport("killed", heartbeat)
    report._tell()
    monkeypatch.setattr(instances, "GONE_AFTER", 0.05)
    eventually(lambda: is_shown_as(Standing.GONE))
    with redis.Redis.from_url(settings.REDIS_URL) as client:
        client.delete(f"instance:{report._id}")
    report._redis.close()
    assert the_one() is None


def test_an_outage_of_redis_is_reported_once_and_costs_the_process_nothing(heartbeat, monkeypatch, caplog):
    monkeypatch.setattr(settings, "REDIS_URL", "redis://127.0.0.1:1/0")
    told: list[object] = []
    with InstanceReport("lonely", heartbeat) as report:
        tell = report._tell
        monkeypatch.setattr(report, "_tell", lambda: (told.append(1), tell()))
        eventually(lambda: len(told) >= 3)
    said = [record.getMessage() for record in caplog.records if record.name == instances.__name__]
    assert [message.partition(",")[0] for message in said] == ["Redis is unavailable"]
    assert not report._thread.is_alive()


def test_a_process_reports_again_when_redis_is_back(heartbeat):
    with InstanceReport("back", heartbeat), redis.Redis.from_url(settings.REDIS_URL) as client:
        eventually(the_one)
        client.delete(INDEX)
        eventually(the_one)


# --- Processes --------------------------------------------------------------------------------------------------


def test_a_role_shows_that_it_drains_until_it_ends(tmp_path):
    port = free_port()
    command = [sys.executable, "-m", "tests.unit.runtime.processes.role", "stuck", str(port), settings.REDIS_URL]
    role = Process("role", command, log=tmp_path / "log")
    role.start()
    try:
        eventually(lambda: is_shown_as(Standing.IN_ROTATION))
        told = the_one().status
        assert (told.role, told.address) == ("stuck", f"127.0.0.1:{port}")
        os.kill(told.pid, signal.SIGTERM)
        eventually(lambda: is_shown_as(Standing.DRAINING))
    finally:
        role.kill()


def test_a_role_that_ends_in_order_leaves_nothing(tmp_path):
    command = [
        sys.executable,
        "-m",
        "tests.unit.runtime.processes.role",
        "steady",
        str(free_port()),
        settings.REDIS_URL,
    ]
    role = Process("role", command, log=tmp_path / "log")
    role.start()
    try:
        eventually(lambda: is_shown_as(Standing.IN_ROTATION))
        assert role.stop() == 0
    finally:
        role.kill()
    assert the_one() is None


async def test_the_web_registers_with_its_first_call_and_drains_at_sigterm(settings):
    async def application(scope, receive, send) -> None:
        called.append(scope["type"])

    settings.WEB_ROLE = "auth"
    called: list[str] = []
    web = WebInstance(application)
    assert the_one() is None
    try:
        for scope in ({"type": "lifespan"}, {"type": "http", "server": ("10.0.0.7", 8000)}):
            await web(scope, None, None)
        await eventually_async(lambda: asyncio.to_thread(is_shown_as, Standing.IN_ROTATION))
        await eventually_async(lambda: asyncio.to_thread(lambda: the_one().status.address == "10.0.0.7:8000"))
        assert the_one().status.role == "auth"
        assert called == ["lifespan", "http"]
        server = Server(config(web), SignUpApi(), web)
        server.handle_exit(signal.SIGTERM, None)
        await eventually_async(lambda: asyncio.to_thread(is_shown_as, Standing.DRAINING))
        assert server.should_exit
    finally:
        web._report.__exit__()
    assert the_one() is None


# --- The page ---------------------------------------------------------------------------------------------------


@pytest.fixture
def operator(db) -> Client:
    return client_with("view_instance")


def test_the_page_shows_each_process_and_the_roles_without_one(operator, heartbeat, django_assert_max_num_queries):
    heartbeat.ready()
    with InstanceReport("consumer of chat", heartbeat), InstanceReport(SCRIPT, heartbeat):
        eventually(lambda: len(read_instances()) == 2)
        with django_assert_max_num_queries(9):
            response = operator.get(PAGE)
    text = response.content.decode()
    assert "✓ in rotation" in text
    assert socket.gethostname() in text
    assert SCRIPT not in text
    others = [f"consumer of {service}" for service in settings.EVENT_CONSUMERS if service != "chat"]
    assert response.context["absent"] == ["web", *others, "relay", "collector of dead letters"]


def test_the_page_names_the_roles_in_the_readers_language(operator, heartbeat):
    with InstanceReport("consumer of chat", heartbeat), InstanceReport("collector of dead letters", heartbeat):
        eventually(lambda: len(read_instances()) == 2)
        response = operator.get(PAGE, headers={"accept-language": "ko"})
    text = response.content.decode()
    assert "chat 컨슈머" in text
    assert "데드 레터 수집기" in text
    others = [f"{service} 컨슈머" for service in settings.EVENT_CONSUMERS if service != "chat"]
    assert response.context["absent"] == ["웹", *others, "릴레이"]


def test_the_page_reports_that_no_process_is_running(operator):
    assert "No process has registered yet." in operator.get(PAGE).content.decode()


def test_staff_without_the_permission_are_refused(db):
    assert client_with("view_topic").get(PAGE).status_code == 403
    assert client_with("view_instance").post(PAGE).status_code == 405


def test_an_outage_of_redis_is_reported_with_the_remedy(operator, monkeypatch):
    monkeypatch.setattr(settings, "REDIS_URL", "redis://127.0.0.1:1/0")
    response = operator.get(PAGE)
    assert response.status_code == 503
    assert "Redis is not responding" in response.content.decode()
