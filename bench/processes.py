"""CPU time, memory and threads of processes, from Linux's /proc."""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def family(pid: int) -> Iterator[int]:
    """Yield the process and all its descendants."""
    yield pid
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            for child in task.read_text().split():
                yield from family(int(child))


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process and its descendants, including those that have ended and been reaped."""
    return sum(_cpu_seconds(member) for member in family(pid))


def _cpu_seconds(pid: int) -> float:
    try:
        # The second field is the command's name in parentheses, which may contain any character.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / _TICKS


def pss_kib(pid: int) -> float:
    """Return the memory of a process and its descendants; shared pages count in proportion (PSS)."""
    total = 0
    for member in family(pid):
        with suppress(OSError):
            lines = Path(f"/proc/{member}/smaps_rollup").read_text().splitlines()
            total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total


def threads(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


class CpuMeter:
    """Measures the CPU time of named processes since its creation."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._pids = dict(pids)
        self._before = self._now()

    def read(self) -> dict[str, float]:
        """Return the seconds by name."""
        return {name: after - self._before[name] for name, after in self._now().items()}

    def total(self, names: Iterable[str] | None = None) -> float:
        used = self.read()
        return sum(used[name] for name in (used if names is None else names))

    def _now(self) -> dict[str, float]:
        return {name: cpu_seconds(pid) for name, pid in self._pids.items()}
