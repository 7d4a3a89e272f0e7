"""The load generator of bench/load, built and asked."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

SOURCE = Path(__file__).parent / "load"
# A share of failures above which figures mean nothing.
FAILURES_MAX = 0.01
# Seconds that one answer of the generator may take.
TIMEOUT = 300


class LoadError(Exception):
    """The load did not get what it asked for."""


@dataclass(frozen=True, slots=True)
class Percentiles:
    """In milliseconds."""

    p50: float
    p95: float
    p99: float
    max: float


NOTHING = Percentiles(float("nan"), float("nan"), float("nan"), float("nan"))


@dataclass(frozen=True, slots=True)
class Load:
    """What the generator saw. Times are from when each was due: to its first event, to all lights decided, and from
    the one to the other. `cpu_ms` is the generator's own, for each."""

    n: int
    failed: int
    rate: float
    first: Percentiles
    last: Percentiles
    between: Percentiles
    cpu_ms: float

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
        return cls(seen["n"], seen["failed"], seen["rate"], first, last, between, seen["load_cpu_ms"])


class Pages:
    """Forms that are open, each in a browser of its own."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def connect(self, *, rate: float) -> Load:
        """Opens the WebSockets of all, `rate` a second; `first` is until each is open."""
        return self._ask(f"connect {rate}")

    def post(self, count: int, *, at_once: int = 1, until: Literal["first", "last"] = "last") -> Load:
        """Posts the next `count` forms, and waits for the first or the last frame of those with a WebSocket. `first` is
        until the answer and the first frame are there."""
        return self._ask(f"post {count} {at_once} {until}")

    def _ask(self, line: str) -> Load:
        _input(self._process).write(line + "\n")
        _input(self._process).flush()
        return _answer(self._process)


class Generator:
    """bench/load as a program. It is built where it runs: `go` and, once, a module proxy are needed."""

    def __init__(self, directory: Path) -> None:
        """Builds it into `directory`. Raises LoadError where that can't be done."""
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
        """Sign-ups over SSE, read to the end."""
        with self._running("signups", url, n=n, c=at_once, rate=rate, timeout=f"{timeout}s") as process:
            return _answer(process)

    def gets(self, url: str, path: str, n: int, *, rate: float) -> Load:
        """GETs of one page; `first` is the whole answer."""
        with self._running("gets", url, path=path, n=n, c=20, rate=rate) as process:
            return _answer(process)

    @contextmanager
    def held_streams(self, url: str, n: int, *, rate: float) -> Iterator[Load]:
        """Streams that stay open: something must keep their sign-ups pending."""
        with self._running("streams", url, n=n, c=n, rate=rate) as process:
            yield _answer(process)

    @contextmanager
    def pages(self, url: str, path: str, n: int) -> Iterator[Pages]:
        """The form, opened n times."""
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
