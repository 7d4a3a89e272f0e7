"""Supervised processes, which are restarted when they end, and which end with this process."""

import asyncio
import re
import signal
import socket
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from runtime.backoff import doubled

LOOPBACK = "127.0.0.1"
# Seconds before an ended process is restarted: the first pause, which doubles up to the longest, and the run time after
# which it is reset.
FIRST_PAUSE, LONGEST_PAUSE, STEADY_RUN = 0.5, 15.0, 30.0
# Timeout in seconds for a health check.
HEALTH_TIMEOUT = 2.0
# Maximum number of one process's warnings shown at a time; the others are in its log.
MOST_SHOWN = 5
# A log line of these levels, in the console format of runtime.logs.
_WARNING = re.compile(r"\S+ \[(?:warning|error|critical) *\] ")


class ProcessGroup:
    """A process group that ends when this process ends, for whatever reason.

    A shell leads the group and reads from a pipe whose other end only this process holds. The kernel closes that end
    even after a kill -9; then the shell kills the group, including all processes that its members have started. This
    works on Linux and macOS. PR_SET_PDEATHSIG exists only on Linux, and would run Python between fork and exec in a
    process with threads. A terminal's Ctrl-C goes to the foreground group, and thus not to members of this one.
    """

    def __enter__(self) -> Self:
        self._leader = subprocess.Popen(["/bin/sh", "-c", "read _; kill -9 0"], stdin=subprocess.PIPE, process_group=0)
        self.id = self._leader.pid
        return self

    def __exit__(self, *_: object) -> None:
        """Kill the processes that are still in the group."""
        if self._leader.stdin:
            self._leader.stdin.close()
        self._leader.wait()


@dataclass(frozen=True, slots=True)
class LocalRole:
    """A kind of process. Its readiness is checked at /health/ready, on `port` or on the HEALTH_PORT that each start
    assigns; a process without health endpoints counts as ready."""

    name: str
    command: Sequence[str]
    port: int = 0
    has_health: bool = True
    keep_open: Sequence[int] = ()  # file descriptors that it inherits


class KeptProcess:
    """The process of one role, which is restarted whenever it ends."""

    def __init__(
        self,
        role: LocalRole,
        *,
        group: ProcessGroup,
        environment: Mapping[str, str],
        folder: Path,
        log_folder: Path,
        tell: Callable[[str], None],
    ) -> None:
        """The process runs in `folder`. Its log in `log_folder` starts empty, and the previous one is kept beside it.
        `tell` prints a line for the user."""
        self.role = role
        self.log = log_folder / f"{role.name.replace(' ', '-')}.log"
        self._group = group
        self._environment = environment
        self._folder = folder
        self._tell = tell
        self._process: asyncio.subprocess.Process | None = None
        self._health_port = role.port
        if self.log.exists() and self.log.stat().st_size:
            self.log.replace(f"{self.log}.1")
        self.log.write_bytes(b"")
        self._shown_to = 0

    async def keep_running(self) -> None:
        """Run the process until this is cancelled; `stop_all` then stops the process."""
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            started_at = loop.time()
            self._process = await self._start()
            code = await self._process.wait()
            failures = 1 if loop.time() - started_at > STEADY_RUN else failures + 1
            pause = doubled(FIRST_PAUSE, times=failures - 1, most=LONGEST_PAUSE)
            self.show_warnings()
            self._tell(f"{self.name} {how_it_ended(code)}{self._last_words()}, and starts again in {pause:g} s.")
            await asyncio.sleep(pause)

    async def _start(self) -> asyncio.subprocess.Process:
        # Use a new port each time: if another program took the old one meanwhile, the process could never restart.
        self._health_port = self.role.port or free_port()
        with self.log.open("ab") as log:
            return await asyncio.create_subprocess_exec(
                *self.role.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._folder,
                env={**self._environment, "HEALTH_PORT": str(self._health_port), "HEALTH_HOST": LOOPBACK},
                pass_fds=self.role.keep_open,
                process_group=self._group.id,
            )

    @property
    def name(self) -> str:
        return self.role.name

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def is_ready(self) -> bool:
        return self.is_running and (not self.role.has_health or await says_ready(self._health_port))

    def send(self, number: signal.Signals) -> None:
        if self._process and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def wait(self) -> None:
        if self._process:
            await self._process.wait()

    def show_warnings(self) -> None:
        """Print the first line of each warning and error logged since the last call."""
        with self.log.open("rb") as log:
            log.seek(self._shown_to)
            written = log.read()
        complete = written[: written.rfind(b"\n") + 1]
        self._shown_to += len(complete)
        warnings = [line for line in complete.decode(errors="replace").splitlines() if _WARNING.match(line)]
        for line in warnings[:MOST_SHOWN]:
            self._tell(f"[{self.name}] {line}")
        if len(warnings) > MOST_SHOWN:
            self._tell(f"[{self.name}] and {len(warnings) - MOST_SHOWN} more in {short(self.log)}")

    def _last_words(self) -> str:
        """Return the last line of the log, which in a traceback names the error, and the log's path."""
        with self.log.open("rb") as log:
            log.seek(max(0, self.log.stat().st_size - 4096))
            lines = log.read().decode(errors="replace").strip().splitlines()
        return f" ({lines[-1].strip() if lines else 'without a word'}; see {short(self.log)})"


async def stop_all(processes: Iterable[KeptProcess], *, grace: float) -> None:
    """Send SIGTERM to each, and SIGKILL to those still running after `grace` seconds."""
    running = [process for process in processes if process.is_running]
    for process in running:
        process.send(signal.SIGTERM)
    if running:
        await asyncio.wait([asyncio.create_task(process.wait()) for process in running], timeout=grace)
    for process in running:
        process.send(signal.SIGKILL)
        await process.wait()


def how_it_ended(code: int) -> str:
    """Describe an exit code; a negative one is that of the signal that ended the process."""
    return f"ended with exit code {code}" if code >= 0 else f"was ended ({signal.strsignal(-code)})"


def short(path: Path) -> str:
    """Return the path relative to the current directory if it is below that."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


async def says_ready(port: int) -> bool:
    """Whether /health/ready on this port answers 200 in time."""
    try:
        async with asyncio.timeout(HEALTH_TIMEOUT):
            reader, writer = await asyncio.open_connection(LOOPBACK, port)
            try:
                writer.write(b"GET /health/ready HTTP/1.0\r\nHost: localhost\r\n\r\n")
                return (await reader.readline()).split()[1:2] == [b"200"]
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False
