"""The lifecycle of long-running commands."""

import gc
import re
import signal
import socket
import subprocess
import sys
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.core.management.base import CommandError
from django.db import OperationalError

from runtime.errors import TransientError
from runtime.processes import health, roles
from runtime.processes.health import Heartbeat
from runtime.processes.roles import (
    COLLECT_AFTER,
    RunningRole,
    StuckDetector,
    check_database,
    collect_rarely,
    running_role,
)
from tests.servers.process import LOOPBACK, Process, free_port, http_status
from tests.waiting import PATIENCE

# --- The end ----------------------------------------------------------------------------------------------------


@pytest.fixture
def start(tmp_path: Path) -> Iterator:
    """Start tests.unit.runtime.processes.role, and return when it works or has ended."""
    started: list[Process] = []

    def start(how: str, *, stop_signal: signal.Signals = signal.SIGTERM) -> Process:
        port = free_port()
        command = [sys.executable, "-m", "tests.unit.runtime.processes.role", how, str(port)]
        process = Process(how, command, log=tmp_path / "log", stop_signal=stop_signal)
        started.append(process)
        process.start()
        if how != "failing":
            process.wait_ready(lambda: http_status(port, "/health/ready") == 200, PATIENCE)
        return process

    yield start
    for process in started:
        process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_role_ends_at_once_after_a_stop_request(start, number):
    role = start("steady", stop_signal=number)
    began = time.monotonic()
    assert role.stop() == 0
    # By itself it would wait for 30 s; after a forced end, the exit code would differ.
    assert time.monotonic() - began < 15
    said = [line for line in role.log().splitlines() if not line.startswith("Redis is unavailable")]
    assert said == ["steady started", f"steady stops: {number.name}", "steady stopped"]


def test_a_stuck_role_ends_after_a_stop_request_too(start):
    role = start("stuck")
    began = time.monotonic()
    assert role.stop() == 1
    assert 4 < time.monotonic() - began < 30, "it would sleep for 60 s"
    assert "stuck did not stop within 5 s and is terminated" in role.log()


def test_a_role_that_hangs_for_long_ends_with_an_error(start):
    role = start("hanging")
    assert role.popen is not None
    assert role.popen.wait(PATIENCE) == 1
    assert re.search(r"hanging has been stuck for \d+ s and ends for a restart", role.log())


def test_a_role_is_stuck_after_many_failed_checks_in_a_row(monkeypatch):
    monkeypatch.setattr(roles, "STUCK_CHECKS", 2)
    heartbeat = Heartbeat()
    detector = StuckDetector(heartbeat)
    # As after a freeze: no heartbeat for long, and then the work continues before the next check.
    for _ in range(5):
        monkeypatch.setattr(health, "BEAT_WITHIN", -1.0)
        assert [detector.is_stuck_now() for _ in range(2)] == [False, False]
        monkeypatch.setattr(health, "BEAT_WITHIN", 60.0)
        assert not detector.is_stuck_now()
    monkeypatch.setattr(health, "BEAT_WITHIN", -1.0)
    assert [detector.is_stuck_now() for _ in range(3)] == [False, False, True]


def test_a_role_that_fails_ends_with_an_error(start):
    role = start("failing")
    assert role.popen is not None
    assert role.popen.wait(PATIENCE) == 1
    assert "LookupError: a bug" in role.log()


def test_the_earlier_signal_handlers_are_restored_at_the_end(settings):
    settings.HEALTH_PORT = 0
    before = [signal.getsignal(number) for number in roles.STOP_SIGNALS]
    with running_role("short") as role:
        assert signal.getsignal(signal.SIGTERM) not in before
        signal.raise_signal(signal.SIGTERM)
        assert role.stop.wait(PATIENCE)
    assert [signal.getsignal(number) for number in roles.STOP_SIGNALS] == before
    assert signal.set_wakeup_fd(-1) == -1


# --- The health page --------------------------------------------------------------------------------------------


def test_a_port_in_use_is_reported_in_a_line(settings):
    with socket.create_server((LOOPBACK, 0)) as taken:
        settings.HEALTH_HOST, settings.HEALTH_PORT = taken.getsockname()
        with pytest.raises(CommandError, match=r"can't listen on .* for its health page: .*in use. Set HEALTH_PORT."):
            running_role("unlucky").__enter__()


# --- Dependencies -----------------------------------------------------------------------------------------------


@pytest.fixture
def role(monkeypatch) -> RunningRole:
    monkeypatch.setattr(roles, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(roles, "LONGEST_PAUSE", 0.01)
    return RunningRole("reader")


def test_a_role_logs_that_it_waits_for_its_dependency(role, caplog):
    failures = [OperationalError("connection refused\n\tIs it running?"), TransientError("no tables")]

    def check() -> None:
        if failures:
            raise failures.pop(0)

    assert role.wait_for("its database", check)
    said = [record for record in caplog.records if record.name == roles.__name__]
    assert [record.getMessage() for record in said] == [
        "reader waits for its database: connection refused Is it running?",
        "reader waits for its database: no tables",
    ]
    assert all(record.exc_info is None for record in said)


def test_a_stop_request_ends_the_waiting(role):
    def check() -> None:
        role.stop.set()
        raise TransientError("away")

    assert not role.wait_for("something", check)


def test_a_role_does_not_wait_after_an_error_that_is_not_transient(role):
    with pytest.raises(ZeroDivisionError):
        role.wait_for("something", lambda: 1 / 0)


@pytest.mark.django_db(databases=["default", "chat"])
@pytest.mark.parametrize("app_label", ["authsvc", "chatsvc"])
def test_a_migrated_database_is_ready(app_label):
    check_database(app_label)


def test_a_database_without_its_tables_is_not_ready(tmp_path):
    """In a separate process, on separate databases."""
    code = (
        "import django; django.setup()\n"
        "from runtime.processes.roles import check_database\n"
        "from runtime.errors import is_transient\n"
        "try: check_database('chatsvc')\n"
        "except Exception as error: print(is_transient(error), error)"
    )
    env = {"DJANGO_SETTINGS_MODULE": "signup_sync.settings", "DATA_DIR": str(tmp_path), "PYTHONPATH": "."}
    said = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout
    assert said == "True chatsvc has unapplied migrations: run manage.py migrate_all\n"


# --- Garbage ----------------------------------------------------------------------------------------------------


class Knot:
    """A reference cycle."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def usual_garbage() -> Iterator[None]:
    usual = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*usual)


def test_garbage_collection_is_rare_and_skips_objects_made_before():
    knots = [weakref.ref(Knot())]
    collect_rarely()
    assert knots[0]() is None
    assert gc.get_freeze_count() > 10_000
    knots = [weakref.ref(Knot()) for _ in range(1000)]
    assert all(knot() for knot in knots)
    keep = [[] for _ in range(COLLECT_AFTER[0])]
    assert keep
    assert not any(knot() for knot in knots)
