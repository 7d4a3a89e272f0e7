"""Builds and runs the load generator in bench/load."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

SOURCE = Path(__file__).parent / "load"
# The share of failures above which a measurement is invalid.
FAILURES_MAX = 0.01
# Timeout in seconds for one answer of the generator.
TIMEOUT = 300


class LoadError(Exception):
    """The load generator failed, or too many of its requests did."""


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Percentiles in milliseconds."""

    p50: float
    p95: float
    p99: float
    max: float


NOTHING = Percentiles(float("nan"), float("nan"), float("nan"), float("nan"))


@dataclass(frozen=True, slots=True)
class Load:
    """The generator's measurements. Times count from when each sign-up was due: `first` until its first event, `last`
    until all lights are decided; `between` is the time from one to the other. `cpu_ms` is the generator's own CPU time
    per sign-up, and `events` the mean number of events in a stream."""

    n: int
    failed: int
    rate: float
    first: Percentiles
    last: Percentiles
    between: Percentiles
    cpu_ms: float
    events: float

    def __str__(self) -> str:
        return (
            f"{self.rate:,.1f}/s, until all green p50 {self.last.p50:.1f} p99 {self.last.p99:.1f} ms, after the first "
            f"event p50 {self.between.p50:.1f} p99 {self.between.p99:.1f} ms, the load's own CPU {self.cpu_ms:.2f} ms"
        )

    @classmethod
    def read(cls, line: str) -> "Load":
        seen: dict[str, Any] = json.loads(line)
        if seen["failed"]:
            what = f"{seen['failed']} of {seen['n']} failed: {seen['errors']}"
            if seen["failed"] > seen["n"] * FAILURES_MAX:
                raise LoadError(what)
            print(f"    {what}", file=sys.stderr)
        first, last, between = (
            Percentiles(**seen[name]) if seen[name] else NOTHING for name in ("first_ms", "last_ms", "between_ms")
        )
        return cls(seen["n"], seen["failed"], seen["rate"], first, last, between, seen["load_cpu_ms"], seen["events"])


class Pages:
    """Open forms, each in a separate browser session."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def connect(self, *, rate: float) -> Load:
        """Open the WebSockets of all forms, `rate` per second; `first` is the time until each is open."""
        return self._ask(f"connect {rate}")

    def post(self, count: int, *, at_once: int = 1, until: Literal["first", "last"] = "last") -> Load:
        """Post the next `count` forms, and wait for the first or the last frame of those with a WebSocket. `first` is
        the time until the answer and the first frame have arrived."""
        return self._ask(f"post {count} {at_once} {until}")

    def _ask(self, line: str) -> Load:
        _input(self._process).write(line + "\n")
        _input(self._process).flush()
        return _answer(self._process)


class Generator:
    """The compiled load generator. Building it needs `go` and, once, a module proxy."""

    def __init__(self, directory: Path) -> None:
        """Build it into `directory`. Raises LoadError if that fails."""
        go = shutil.which("go")
        if go is None:
            raise LoadError("the load generator needs Go (Debian: apt-get install golang)")
        self._program = directory / "load"
        built = subprocess.run(
            [go, "build", "-o", self._program, "."], cwd=SOURCE, capture_output=True, text=True, check=False
        )
        if built.returncode != 0:
            raise LoadError(f"the load generator could not be built:\n{built.stderr}")

    def signups(self, url: str, n: int, *, at_once: int = 1, rate: float = 0, timeout: float = 60) -> Load:
        """Post sign-ups and read their SSE streams to the end."""
        with self._running("signups", url, n=n, c=at_once, rate=rate, timeout=f"{timeout}s") as process:
            return _answer(process)

    def signups_due(self, url: str, due: Sequence[float], *, at_most: int = 100) -> Load:
        """Post sign-ups at these times, in milliseconds from the start, and read their SSE streams to the end. No more
        than `at_most` run at once, on as many connections; the others wait for their turn."""
        times = self._program.with_name("due")
        times.write_text("".join(f"{each}\n" for each in due))
        with self._running("signups", url, due=times, c=at_most) as process:
            return _answer(process)

    def gets(self, url: str, path: str, n: int, *, rate: float) -> Load:
        """GET one page `n` times; `first` is the time until the complete answer."""
        with self._running("gets", url, path=path, n=n, c=20, rate=rate) as process:
            return _answer(process)

    @contextmanager
    def held_streams(self, url: str, n: int, *, rate: float) -> Iterator[Load]:
        """Hold `n` streams open. The caller must keep their sign-ups pending."""
        with self._running("streams", url, n=n, c=n, rate=rate) as process:
            yield _answer(process)

    @contextmanager
    def pages(self, url: str, path: str, n: int) -> Iterator[Pages]:
        """Open the form `n` times."""
        with self._running("pages", url, path=path, n=n, c=4) as process:
            _answer(process)
            yield Pages(process)

    @contextmanager
    def _running(self, mode: str, url: str, **flags: object) -> "Iterator[subprocess.Popen[str]]":
        words = [f"-{name}={value}" for name, value in flags.items()]
        process = subprocess.Popen(
            [self._program, mode, f"-url={url}", *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        try:
            yield process
            _input(process).close()
            process.wait(TIMEOUT)
        finally:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()


def _input(process: "subprocess.Popen[str]") -> IO[str]:
    assert process.stdin is not None
    return process.stdin


def _answer(process: "subprocess.Popen[str]") -> Load:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise LoadError(f"the load generator ended with {process.wait()}")
    return Load.read(line)
