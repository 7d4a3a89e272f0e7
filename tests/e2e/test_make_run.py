"""`make run` as a person types it, in a copy of the project as `git clone` would make it.

The copy shares this run's environment (VENV), so that the installation of the packages, a minute over the network, is
not repeated here; everything else is a first start. Only the embedded default is started by it, so only there it runs.
"""

import contextlib
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Person
from tests.servers import free_port
from tests.waiting import eventually

ROOT = Path(__file__).resolve().parents[2]
START_TIMEOUT = 60.0
ROLES = (
    "signup_sync.asgi:application",
    "consume_events auth",
    "consume_events chat",
    "consume_events customer",
    "relay_signups",
    "collect_dead_letters",
    "valkey-server",
)

pytestmark = pytest.mark.needs("application")


@pytest.fixture(scope="module", autouse=True)
def _only_embedded(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("stack") != "embedded":
        pytest.skip("make run is the embedded default: --stack=embedded tests it")


class MakeRun:
    """One `make run`, in a session of its own as in a terminal of its own."""

    def __init__(self, project: Path, **variables: str) -> None:
        self.port = free_port()
        self.env = environment(PORT=str(self.port), **variables)
        self.output_path = project / f"output-{self.port}"
        self.started_at = time.monotonic()
        with self.output_path.open("wb") as output:
            self.make = subprocess.Popen(
                ["make", "run"],
                cwd=project,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        return self.output_path.read_text()

    def wait_for(self, text: str, *, timeout: float = START_TIMEOUT) -> None:
        def is_said() -> bool:
            if self.make.poll() is not None and text not in self.output:
                raise RuntimeError(f"make ended with {self.make.returncode}:\n{self.output}")
            return text in self.output

        eventually(is_said, timeout, what=f"{text!r} in:\n{self.output}")

    def wait_ready(self) -> float:
        """Seconds from its start until it said that it is ready."""
        self.wait_for("runs at")
        return time.monotonic() - self.started_at

    def processes(self) -> dict[int, str]:
        """What runs in this session, by process id: also what lost its parent or is in another process group."""
        lines = subprocess.run(
            ["ps", "-A", "-ww", "-o", "pid=,stat=,args="], capture_output=True, text=True, check=True
        )
        rows = [line.split(maxsplit=2) for line in lines.stdout.splitlines()]
        return {int(pid): args for pid, stat, args in rows if stat[0] != "Z" and session_of(int(pid)) == self.make.pid}

    def pid_of(self, words: str) -> int:
        (pid,) = [pid for pid, args in self.processes().items() if words in args and "/bin/sh" not in args]
        return pid

    def press_ctrl_c(self) -> None:
        """What a terminal does: SIGINT to the foreground process group, which is that of make."""
        os.killpg(self.make.pid, signal.SIGINT)

    def wait_gone(self, *, timeout: float = 5.0) -> None:
        eventually(
            lambda: self.make.poll() is not None and not self.processes(), timeout, what="nothing of it is left running"
        )

    def kill_all(self) -> None:
        for pid in self.processes():
            os.kill(pid, signal.SIGKILL)
        self.make.wait()


def session_of(pid: int) -> int:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return 0


def environment(**variables: str) -> dict[str, str]:
    """A person's: nothing of what this test run set for its own servers."""
    names = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR")
    kept = {name: os.environ[name] for name in names if name in os.environ}
    return {**kept, "VENV": sys.prefix, **variables}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tracked files, with their times, which make compares. Its name is one to trip over."""
    copy = tmp_path_factory.mktemp("project") / "sign up #1, 100% c++"
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for file in filter(None, files.split("\0")):
        if (ROOT / file).is_file():
            (copy / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / file, copy / file)
    return copy


@contextlib.contextmanager
def make_run(project: Path, **variables: str) -> Iterator[MakeRun]:
    """Leaves nothing behind, even where the test failed."""
    run = MakeRun(project, **variables)
    try:
        yield run
    finally:
        run.kill_all()


@pytest.fixture(scope="module")
def running(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeRun]:
    """One that is ready, for the tests that leave it so."""
    with make_run(project, DATA_DIR=str(tmp_path_factory.mktemp("data"))) as run:
        run.wait_ready()
        yield run


def sign_up(port: int, person: Person) -> list[dict[str, Any]]:
    """The states of the stream that `POST /user` answers with."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    headers = {"Content-Type": "application/json", "Accept": "text/event-stream"}
    connection.request("POST", "/user", json.dumps(person.form), headers)
    response = connection.getresponse()
    assert response.status == 200
    states = [json.loads(line.removeprefix(b"data:")) for line in response if line.startswith(b"data:")]
    connection.close()
    return states


def all_green(states: list[dict[str, Any]]) -> bool:
    return {light["status"] for light in states[-1]["services"].values()} == {"SUCCESS"}


def get(port: int, path: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", path)
    status = connection.getresponse().status
    connection.close()
    return status


def test_first_and_second_start_sign_up_and_end(project: Path, person: Person) -> None:
    with make_run(project) as first:
        print(f"first start: {first.wait_ready():.1f} s")
        assert "Preparing the database" in first.output
        assert f"http://127.0.0.1:{first.port}/\n" in first.output
        for path in ("/signup/", "/admin/login/", "/static/admin/css/base.css"):
            assert get(first.port, path) == 200
        first.press_ctrl_c()
        first.wait_gone()
        assert first.output.endswith("Stopped. The data stays in var.\n")
        assert "Traceback" not in first.output
        assert "***" not in first.output  # make's own words for a failure

    with make_run(project) as second:
        second.wait_ready()
        assert all_green(sign_up(second.port, person))
        seconds = time.monotonic() - second.started_at
        print(f"second start: {seconds:.1f} s until the first sign-up was all green")
        assert seconds < 8
        assert "Preparing" not in second.output
        assert "Installing" not in second.output
        os.kill(second.make.pid, signal.SIGTERM)
        second.wait_gone()


def test_killing_the_launcher_leaves_nothing(project: Path, tmp_path: Path) -> None:
    with make_run(project, DATA_DIR=str(tmp_path)) as run:
        run.wait_ready()
        assert all(run.pid_of(role) for role in ROLES)
        os.kill(run.pid_of("manage.py run_local"), signal.SIGKILL)
        run.wait_gone()


def test_what_is_killed_starts_again_and_the_person_is_told(running: MakeRun, person: Person) -> None:
    before = {role: running.pid_of(role) for role in ROLES}
    for pid in before.values():
        os.kill(pid, signal.SIGKILL)
    running.wait_for("valkey was ended (Killed")
    running.wait_for("consume_events chat was ended (Killed")

    def are_new() -> bool:
        now = running.processes().items()
        return all(any(role in args and pid != before[role] for pid, args in now) for role in ROLES)

    eventually(are_new, 10, what="each role runs in a new process")
    eventually(lambda: get(running.port, "/health/ready") == 200, 20)
    assert all_green(sign_up(running.port, person))


def test_a_second_one_on_the_same_data_says_where_the_first_is(running: MakeRun, project: Path) -> None:
    said = refused(project, PORT=str(free_port()), DATA_DIR=running.env["DATA_DIR"])
    assert f"It runs already: http://127.0.0.1:{running.port}/" in said
    assert get(running.port, "/health/ready") == 200


def test_a_port_in_use_is_said_with_what_to_do(running: MakeRun, project: Path, tmp_path: Path) -> None:
    said = refused(project, PORT=str(running.port), DATA_DIR=str(tmp_path))
    assert f"Port {running.port} is in use" in said
    assert f"PORT={running.port + 1} make run" in said


def test_a_broken_database_is_said_with_what_to_do(project: Path, tmp_path: Path) -> None:
    database = tmp_path / "chat.sqlite3"
    database.write_text("no database\n" * 1000)
    said = refused(project, PORT=str(free_port()), DATA_DIR=str(tmp_path))
    assert f"The database {database} can't be used (file is not a database)" in said
    assert f"mv {database} {database}.broken" in said


def test_a_data_directory_that_cannot_be_written_is_said(project: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    said = refused(project, PORT=str(free_port()), DATA_DIR=f"{tmp_path}/file")
    assert f"DATA_DIR {tmp_path}/file can't be written" in said


def test_an_old_python_is_said_with_what_to_do(project: Path, tmp_path: Path) -> None:
    old = tmp_path / "python3"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    said = refused(project, PYTHON=str(old), VENV=str(tmp_path / "venv"))
    assert "Python 3.11 or newer is needed" in said
    assert not (tmp_path / "venv").exists()


def refused(project: Path, **variables: str) -> str:
    """The one line that `make run` says before it gives up."""
    done = make(project, "run", environment(**variables))
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if not line.startswith("make: ***")]
    assert len(lines) == 1, done.stderr
    return lines[0]


def make(project: Path, target: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["make", target], cwd=project, env=env, capture_output=True, text=True, timeout=60)


def test_an_administrator_is_made_while_it_runs(project: Path, running: MakeRun, person: Person) -> None:
    admin = {"ADMIN_USER_ID": person.user_id, "ADMIN_EMAIL": person.email, "ADMIN_PASSWORD": person.password}
    done = make(project, "admin", {**running.env, **admin})
    assert done.returncode == 0, done.stderr
    assert person.password not in done.stdout + done.stderr
    again = make(project, "admin", {**running.env, **admin})
    assert again.returncode != 0
    assert "already" in again.stderr
    assert "Traceback" not in again.stderr
