"""Run targets of the Makefile side by side, as `make test` does:

    python -m tests.side_by_side test-real-parallel "test-search test-compose"

Each argument is a lane, whose targets run one after another. Each line of output begins with the name of its target.
After a failure, the targets that are running finish, and no other one starts. The last lines of what failed are
repeated at the end, where a reader looks first.
"""

import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Sequence
from types import FrameType

# Enough for pytest's summary of a few failures.
REPEATED_LINES = 12


class SideBySide:
    """Several lanes of targets. After `run`, `failed` has the targets that failed, with their last lines of output."""

    def __init__(self, lanes: Sequence[Sequence[str]]) -> None:
        self._threads = [threading.Thread(target=self._run_lane, args=[lane]) for lane in lanes]
        self._running: list[subprocess.Popen[str]] = []
        self._is_ended = False  # so no other target starts
        self._is_terminated = False
        self.failed: dict[str, Sequence[str]] = {}

    def run(self) -> bool:
        """Return whether all targets have succeeded."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._end)
        for thread in self._threads:
            thread.start()
        for thread in self._threads:
            thread.join()
        return not self._is_ended

    def _run_lane(self, targets: Sequence[str]) -> None:
        for target in targets:
            if self._is_ended:
                return
            succeeded = False
            last_lines: deque[str] = deque(maxlen=REPEATED_LINES)
            try:
                succeeded = self._make(target, last_lines)
            finally:
                # A lane may also end by an error, for example because nothing reads the output any more.
                if not succeeded:
                    self._is_ended = True
                    self.failed[target] = last_lines

    def _make(self, target: str, last_lines: deque[str]) -> bool:
        print(f"== make {target}\n", end="", flush=True)
        with subprocess.Popen(
            [os.environ.get("MAKE", "make"), target],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as process:
            self._running.append(process)
            if self._is_terminated:  # The signal came before it could be passed on.
                process.terminate()
            for line in process.stdout or ():
                last_lines.append(f"{target}: {line.rstrip()}")
                print(f"{last_lines[-1]}\n", end="", flush=True)
        return process.returncode == 0

    def _end(self, number: int, _frame: FrameType | None) -> None:
        """Start nothing more. Only SIGTERM is passed on, because a terminal sends Ctrl-C to all processes itself."""
        self._is_ended = True
        if number == signal.SIGTERM:
            self._is_terminated = True
            for process in self._running:
                process.terminate()


def main(lanes: Sequence[str]) -> int:
    run = SideBySide([lane.split() for lane in lanes])
    succeeded = run.run()
    for target, last_lines in run.failed.items():
        for line in last_lines:
            print(line, file=sys.stderr)
        print(f"make test: '{target}' failed; later steps did not run. To run it alone: make {target}", file=sys.stderr)
    return 0 if succeeded else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
