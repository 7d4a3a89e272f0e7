"""A clone of the project, in which tests type `make run` and other commands."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from signup_sync.local.running import running_settings
from tests.contract import kafka_messages
from tests.servers import free_port
from tests.servers.process import ROOT
from tests.waiting import PATIENCE, eventually

START_TIMEOUT = 60.0


def copy_project(copy: Path) -> Path:
    """Copy the project to this folder, as `git clone` would, with this run's environment of Python."""
    for file in project_files():
        (copy / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / file, copy / file)
    # The path in which the README's commands look for the environment; make gets it in VENV.
    (copy / ".venv").symlink_to(sys.prefix)
    return copy


def project_files() -> list[str]:
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [file for file in files.split("\0") if file and (ROOT / file).is_file()]


class MakeRun:
    """One `make run`, in a separate session as in its own terminal."""

    def __init__(self, project: Path, **variables: str) -> None:
        self.port = free_port()
        self.env = environment(PORT=str(self.port), **variables)
        self.output_path = project / f"output-{self.port}"
        self.started_at = time.monotonic()
        self._validated = contextlib.ExitStack()
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
        """Return the seconds from its start until it reported that it is ready. From then on, its Kafka messages are
        validated.
        """
        self.wait_for("runs at")
        ready_at = time.monotonic()
        broker = running_settings(self.data_dir)["KAFKA_BOOTSTRAP_SERVERS"]
        self._validated.enter_context(kafka_messages.validated({"bootstrap.servers": broker}))
        return ready_at - self.started_at

    @property
    def data_dir(self) -> Path:
        return Path(self.env.get("DATA_DIR") or self.output_path.parent / "var")

    def validate_messages(self) -> None:
        """Validate what its broker has, which is lost when it ends."""
        self._validated.close()

    def processes(self) -> dict[int, str]:
        """The processes of this session, by process ID, including orphans and those in other process groups."""
        lines = subprocess.run(
            ["ps", "-A", "-ww", "-o", "pid=,stat=,args="], capture_output=True, text=True, check=True
        )
        rows = [line.split(maxsplit=2) for line in lines.stdout.splitlines()]
        return {int(pid): args for pid, stat, args in rows if stat[0] != "Z" and session_of(int(pid)) == self.make.pid}

    def pid_of(self, words: str) -> int:
        """Return the process ID of this command. Wait for one that starts late."""

        def pids() -> list[int]:
            return [pid for pid, args in self.processes().items() if words in args and "/bin/sh" not in args]

        (pid,) = eventually(pids, what=f"a process {words}")
        return pid

    def press_ctrl_c(self) -> float:
        """Press Ctrl-C: send SIGINT to the foreground process group, which is that of make. Return when it was sent."""
        self.validate_messages()
        pressed_at = time.monotonic()
        os.killpg(self.make.pid, signal.SIGINT)
        return pressed_at

    def wait_gone(self, *, timeout: float = PATIENCE) -> None:
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
    """A user's environment, without the variables that this test run set for its own servers."""
    names = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR")
    kept = {name: os.environ[name] for name in names if name in os.environ}
    return {**kept, "VENV": sys.prefix, **variables}


@contextlib.contextmanager
def make_run(project: Path, **variables: str) -> Iterator[MakeRun]:
    """Leaves nothing behind, even if the test failed."""
    with contextlib.ExitStack() as cleanup:
        run = MakeRun(project, **variables)
        cleanup.callback(run.kill_all)
        cleanup.callback(run.validate_messages)
        yield run


def make(project: Path, target: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["make", target], cwd=project, env=env, capture_output=True, text=True, timeout=120)


def all_green(states: list[dict[str, Any]]) -> bool:
    """Whether the last state of a stream has no other light."""
    return {light["status"] for light in states[-1]["services"].values()} == {"SUCCESS"}
