"""Child processes and servers that tests start, stop, kill, freeze and restart."""

import fcntl
import http.client
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from functools import cache
from pathlib import Path
from typing import BinaryIO, ClassVar, Self

from tests.waiting import eventually

ROOT = Path(__file__).resolve().parents[2]
LOOPBACK = "127.0.0.1"
# Under the range from which Linux and macOS take the ports of outgoing connections, so that a server that is down for
# a moment finds its port free when it comes back.
PORTS = range(15_000, 32_000)
# Each process locks the byte of every port that it assigns, until it ends. Several test runs and workers look for ports
# at the same time, and an assigned port may have no listener yet, or none for a moment.
PORT_LOCKS = Path(tempfile.gettempdir()) / f"signup-sync-ports-{os.getuid()}"

_given_ports: set[int] = set()


def free_port() -> int:
    """Return a loopback port that has no listener and that no running test run has assigned before."""
    tried = random.sample(PORTS, k=min(200, len(PORTS)))
    for port in tried:
        with socket.socket() as probe:
            if port not in _given_ports and probe.connect_ex((LOOPBACK, port)) != 0 and _reserve(port):
                _given_ports.add(port)
                return port
    raise RuntimeError(f"no free port among {len(tried)} tried between {min(PORTS)} and {max(PORTS)}")


def _reserve(port: int) -> bool:
    """Lock the port; False if another process has it."""
    with suppress(BlockingIOError, PermissionError):
        fcntl.lockf(_port_locks(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
        return True
    return False


@cache
def _port_locks() -> BinaryIO:
    """Return the open file. It is never closed, because that would release all locks of the process."""
    return PORT_LOCKS.open("ab")


def http_status(port: int, path: str) -> int | None:
    """Return the status with which a server on the loopback answers; None without an answer."""
    with (
        suppress(OSError, http.client.HTTPException),
        closing(http.client.HTTPConnection(LOOPBACK, port, timeout=10)) as connection,
    ):
        connection.request("GET", path)
        return connection.getresponse().status
    return None


def dies_with_parent() -> list[str]:
    """Return the prefix of a command that Linux kills when the test run is killed.

    The kernel watches the thread that started it, so start processes in a thread that stays alive.
    """
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL"] if setpriv else []


class Process:
    """A child process with its log in a file. It can be restarted after its end."""

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
        stop_signal: signal.Signals = signal.SIGTERM,
    ) -> None:
        self.name = name
        self.command = [*(prefix or dies_with_parent()), *map(str, command)]
        self.log_path = log
        self.env = dict(os.environ if env is None else env)
        self.stop_signal = stop_signal
        self.popen: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it in a separate session: a Ctrl-C reaches only the test run, which then ends it in order."""
        if self.running:
            raise RuntimeError(f"{self.name} runs already")
        with self.log_path.open("ab") as log:
            self.popen = subprocess.Popen(
                self.command,
                env=self.env,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def running(self) -> bool:
        return self.popen is not None and self.popen.poll() is None

    @property
    def pid(self) -> int:
        if self.popen is None:
            raise RuntimeError(f"{self.name} was never started")
        return self.popen.pid

    @property
    def exit_code(self) -> int | None:
        """The last exit code, negative for a signal; None while the process runs."""
        return None if self.popen is None else self.popen.poll()

    def stop(self, timeout: float = 30.0) -> int:
        """Ask it to end, and return its exit code. After `timeout` seconds, kill it and raise TimeoutError."""
        popen = self.popen
        if popen is None:
            return 0
        if popen.poll() is None:
            popen.send_signal(self.stop_signal)
            popen.send_signal(signal.SIGCONT)
        try:
            return popen.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise TimeoutError(f"{self.name} did not end within {timeout:g} s\n{self.log_tail()}") from None

    def kill(self) -> None:
        """kill -9."""
        self.signal(signal.SIGKILL)
        if self.popen is not None:
            self.popen.wait()

    def pause(self) -> None:
        """Freeze it: its connections stay open, and it answers nothing."""
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.signal(signal.SIGCONT)

    def signal(self, number: signal.Signals) -> None:
        if self.popen is not None and self.running:
            self.popen.send_signal(number)

    def wait_ready(self, is_ready: Callable[[], bool], timeout: float) -> None:
        """Return when `is_ready` is true. Raise RuntimeError with the end of the log if the process ends or takes too
        long.
        """

        def is_ready_or_ended() -> bool:
            if not self.running:
                raise RuntimeError(f"{self.name} ended with {self.exit_code}\n{self.log_tail()}")
            return is_ready()

        try:
            eventually(is_ready_or_ended, timeout, what=f"{self.name} is ready")
        except AssertionError as late:
            raise RuntimeError(f"{late}\n{self.log_tail()}") from None

    def log(self) -> str:
        """Its complete output so far, over all of its starts."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def log_tail(self, lines: int = 30) -> str:
        return "\n".join([f"--- the end of {self.log_path.name}:", *self.log().splitlines()[-lines:]])


class Server(ABC):
    """A server for tests. `env` has the product's settings that lead to it."""

    name: ClassVar[str]
    # Maximum seconds for a start on a busy machine; most starts take far less.
    start_timeout: ClassVar[float] = 60.0
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM

    def __init__(self) -> None:
        # Not in pytest's temporary directory, which PostgreSQL, as another user, could not enter.
        self.directory = Path(tempfile.mkdtemp(prefix=f"signup-sync-{self.name}-"))
        self.directory.chmod(0o711)
        self.port = free_port()
        self.process = Process(
            self.name,
            self.command(),
            log=self.directory / f"{self.name}.log",
            env=self.process_env(),
            prefix=self.prefix(),
            stop_signal=self.stop_signal,
        )
        self._is_prepared = False

    @classmethod
    @abstractmethod
    def missing(cls) -> str | None:
        """Return why it can't run here, and how to get it, in a sentence; None if it can."""

    @abstractmethod
    def command(self) -> Sequence[str | Path]: ...

    @abstractmethod
    def is_ready(self) -> bool:
        """Whether it answers a real request; False if it is down."""

    @property
    @abstractmethod
    def env(self) -> dict[str, str]: ...

    def prepare(self) -> None:  # noqa: B027 - most servers have nothing to prepare
        """Create the data directory before the first start."""

    def process_env(self) -> dict[str, str]:
        return dict(os.environ)

    def prefix(self) -> Sequence[str]:
        return dies_with_parent()

    @property
    def address(self) -> str:
        return f"{LOOPBACK}:{self.port}"

    def start(self) -> None:
        """Start or restart it, and return when it answers."""
        self.launch()
        self.wait_ready()

    def launch(self) -> None:
        """Start it without waiting, so that several servers can start at the same time."""
        if not self._is_prepared:
            self.prepare()
            self._is_prepared = True
        self.process.start()

    def wait_ready(self) -> None:
        self.process.wait_ready(self.is_ready, self.start_timeout)

    def stop(self) -> int:
        """Stop it in order, keeping its data and port. Return the exit code."""
        return self.process.stop()

    def kill(self) -> None:
        """kill -9 it, keeping its data and port."""
        self.process.kill()

    def pause(self) -> None:
        self.process.pause()

    def resume(self) -> None:
        self.process.resume()

    def close(self) -> None:
        """End it at once, and delete its data."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, command: Sequence[str | Path], *, stdin: str = "") -> None:
        """Run a command of the preparation. Raise RuntimeError with its output if it fails."""
        words = [*self.prefix(), *map(str, command)]
        done = subprocess.run(
            words, env=self.process_env(), cwd=self.directory, input=stdin, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise RuntimeError(f"{self.name}: {' '.join(words)} failed:\n{done.stdout}{done.stderr}")
