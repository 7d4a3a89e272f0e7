"""`make run` as a person types it, in a copy of the project as `git clone` would make it.

The copy shares this run's environment (VENV), so that the installation of the packages, a minute over the network, is
not repeated here; everything else is a first start. Only the embedded default is started by it, so only there it runs.
"""

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
    "valkey-server",
)

pytestmark = pytest.mark.needs("application")


@pytest.fixture(scope="module", autouse=True)
def _only_embedded(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("stack") != "embedded":
        pytest.skip("make run is the embedded default: --stack=embedded tests it")


class MakeRun:
    """One `make run`, in a session of its own as in a terminal of its own."""

    def __init__(self, project: Path, *, port: int, target: str = "run") -> None:
        self.port = port
        self.output_path = project / f"output-{time.monotonic_ns()}"
        self.started_at = time.monotonic()
        with self.output_path.open("wb") as output:
            self.make = subprocess.Popen(
                ["make", target],
                cwd=project,
                env=environment(port),
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


def environment(port: int) -> dict[str, str]:
    """A person's: nothing of what this test run set for its own servers."""
    names = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR")
    kept = {name: os.environ[name] for name in names if name in os.environ}
    return {**kept, "PORT": str(port), "VENV": sys.prefix}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tracked files, with their times (make compares those). The folder's name has what shells and URLs trip over."""
    copy = tmp_path_factory.mktemp("project") / "sign up #1, 100% c++"
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for file in filter(None, files.split("\0")):
        if (ROOT / file).is_file():
            (copy / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / file, copy / file)
    return copy


@pytest.fixture
def started(project: Path) -> Iterator[list[MakeRun]]:
    """Put in what must not outlive the test."""
    runs: list[MakeRun] = []
    yield runs
    for run in runs:
        run.kill_all()


@pytest.fixture
def running(project: Path, started: list[MakeRun]) -> MakeRun:
    run = MakeRun(project, port=free_port())
    started.append(run)
    run.wait_ready()
    return run


def sign_up(port: int, person: Person) -> list[dict[str, object]]:
    """The states of the stream that `POST /user` answers with."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    headers = {"Content-Type": "application/json", "Accept": "text/event-stream"}
    connection.request("POST", "/user", json.dumps(person.form), headers)
    response = connection.getresponse()
    assert response.status == 200
    states = [json.loads(line.removeprefix(b"data:")) for line in response if line.startswith(b"data:")]
    connection.close()
    return states


def get(port: int, path: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", path)
    status = connection.getresponse().status
    connection.close()
    return status


def test_first_and_second_start_sign_up_and_ctrl_c(project: Path, started: list[MakeRun], person: Person) -> None:
    first = MakeRun(project, port=free_port())
    started.append(first)
    seconds = first.wait_ready()
    print(f"first start: {seconds:.1f} s")
    assert "Preparing the database" in first.output
    assert f"http://127.0.0.1:{first.port}/\n" in first.output
    assert {path: get(first.port, path) for path in ("/signup/", "/admin/login/", "/static/admin/css/base.css")} == {
        "/signup/": 200,
        "/admin/login/": 200,
        "/static/admin/css/base.css": 200,
    }
    first.press_ctrl_c()
    first.wait_gone()
    assert first.output.endswith("Stopped. The data stays in var.\n")
    assert "Traceback" not in first.output
    assert "***" not in first.output  # make's own words for a failure

    second = MakeRun(project, port=free_port())
    started.append(second)
    second.wait_ready()
    states = sign_up(second.port, person)
    seconds = time.monotonic() - second.started_at
    print(f"second start: {seconds:.1f} s until the first sign-up was all green")
    assert {light["status"] for light in states[-1]["services"].values()} == {"SUCCESS"}
    assert seconds < 8
    assert "Preparing" not in second.output
    assert "Installing" not in second.output


def test_sigterm_ends_everything_too(running: MakeRun) -> None:
    os.kill(running.make.pid, signal.SIGTERM)
    running.wait_gone()


def test_killing_the_launcher_leaves_nothing(running: MakeRun) -> None:
    assert len([role for role in ROLES if running.pid_of(role)]) == len(ROLES)
    os.kill(running.pid_of("manage.py run_local"), signal.SIGKILL)
    running.wait_gone()


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
    assert {light["status"] for light in sign_up(running.port, person)[-1]["services"].values()} == {"SUCCESS"}


def test_a_second_one_on_the_same_data_says_where_the_first_is(running: MakeRun, project: Path) -> None:
    assert f"It runs already: http://127.0.0.1:{running.port}/" in refused(project, free_port())
    assert get(running.port, "/health/ready") == 200


def test_a_port_in_use_is_said_with_what_to_do(project: Path, running: MakeRun, tmp_path: Path) -> None:
    said = refused(project, running.port, DATA_DIR=str(tmp_path / "other data"))
    assert f"Port {running.port} is in use" in said
    assert f"PORT={running.port + 1} make run" in said


def test_a_broken_database_is_said_with_what_to_do(project: Path, tmp_path: Path) -> None:
    database = tmp_path / "chat.sqlite3"
    database.write_text("no database\n" * 1000)
    said = refused(project, free_port(), DATA_DIR=str(tmp_path))
    assert f"The database {database} can't be used (file is not a database)" in said
    assert f"mv {database} {database}.broken" in said


def test_a_data_directory_that_cannot_be_written_is_said(project: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert f"DATA_DIR {tmp_path}/file can't be written" in refused(project, free_port(), DATA_DIR=f"{tmp_path}/file")


def test_an_old_python_is_said_with_what_to_do(project: Path, tmp_path: Path) -> None:
    old = tmp_path / "python3"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    said = refused(project, free_port(), PYTHON=str(old), VENV=str(tmp_path / "venv"))
    assert "Python 3.11 or newer is needed" in said
    assert not (tmp_path / "venv").exists()


def refused(project: Path, port: int, **variables: str) -> str:
    """The one line that `make run` says before it gives up."""
    done = subprocess.run(
        ["make", "run"], cwd=project, env={**environment(port), **variables}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if not line.startswith("make: ***")]
    assert len(lines) == 1, done.stderr
    return lines[0]


def test_an_administrator_is_made_while_it_runs(project: Path, running: MakeRun, person: Person) -> None:
    variables = {"ADMIN_USER_ID": person.user_id, "ADMIN_EMAIL": person.email, "ADMIN_PASSWORD": person.password}
    command = ["make", "admin"]
    env = {**environment(running.port), **variables}
    done = subprocess.run(command, cwd=project, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert person.password not in done.stdout + done.stderr
    again = subprocess.run(command, cwd=project, env=env, capture_output=True, text=True, timeout=60)
    assert again.returncode != 0
    assert "Traceback" not in again.stderr
