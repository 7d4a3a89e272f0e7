"""Commands of the product that work through many rows: their rate and memory."""

import sys
import time
from dataclasses import dataclass
from pathlib import Path

from bench.installation import Installation
from bench.processes import pss_kib
from bench.report import Goal, Row
from bench.running import tell
from tests.servers import Process
from tests.servers.process import ROOT


@dataclass(frozen=True, slots=True)
class MeasuredCommand:
    """A command: its average rate per second, and its memory in its first tenth and at its highest."""

    rate: float
    early_kib: float
    highest_kib: float

    def memory_row(self, name: str, *, goal: Goal) -> Row:
        return Row(
            name=f"memory of {name} at its highest",
            unit="MiB",
            ours=self.highest_kib / 1024,
            other=self.early_kib / 1024,
            against="at a tenth of it",
            goal=goal,
        )


def run_command(ours: Installation, name: str, *options: str, number: int, said: str) -> MeasuredCommand:
    """Run the command on so many rows, and check the last line that it prints."""
    command: list[str | Path] = [sys.executable, ROOT / "manage.py", name, *options]
    process = Process(name, command, env=ours.stack.env, log=ours.stack.directory / f"{name}.log")
    begun = time.monotonic()
    memory: list[float] = []
    process.start()
    try:
        while process.running:
            memory.append(pss_kib(process.pid))
            time.sleep(0.25)
    finally:
        process.kill()
    seconds = time.monotonic() - begun
    # The log lines, 77 bytes per sign-up, precede the last line.
    last = process.log().strip().rpartition("\n")[2]
    if last != said:
        raise RuntimeError(f"{name} did not say {said!r}: {last}")
    tell(f"{last}, in {seconds:.1f} s")
    return MeasuredCommand(number / seconds, max(memory[: len(memory) // 10 + 1]), max(memory))
