"""`python -m bench.hot`: profile the CPU use of every role with py-spy during sign-ups."""

import os
import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.processes import CpuMeter
from bench.rows.pace import AT_ONCE, warm_up
from bench.running import SMALL, Bench, tell

SECONDS = 12
# Samples per second; more would themselves be a load.
LOOKS = 50
SHOWN = 15


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="signup-sync-profile-", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        directory.chmod(0o711)
        bench = Bench(directory, SMALL)
        try:
            profile(bench, directory)
        finally:
            bench.close()


def profile(bench: Bench, directory: Path) -> None:
    """Print a table for each role, in descending order of CPU use."""
    ours = bench.ours
    warm_up(bench, ours)
    rate = bench.generator.signups(ours.url, bench.size.signups, at_once=AT_ONCE).rate
    roles = {role: process.pid for role, process in ours.stack.roles.items()}
    meter = CpuMeter(ours.pids)
    tell(f"profiling for {SECONDS} s at {rate:,.0f} sign-ups/s")
    with ThreadPoolExecutor(len(roles) + 1) as pool:
        load = pool.submit(bench.generator.signups, ours.url, round(rate * (SECONDS + 3)), at_once=AT_ONCE)
        records = {role: pool.submit(_record, pid, directory / f"{role}.raw") for role, pid in roles.items()}
        used = meter.read() if load.result() else {}
        stacks = {role: record.result() for role, record in records.items()}
    total = sum(used.values())
    print(
        "CPU: "
        + ", ".join(f"{name} {100 * used[name] / total:.0f} %" for name in sorted(used, key=used.__getitem__)[::-1])
    )
    for role in sorted(roles, key=used.__getitem__, reverse=True):
        print(f"\n{role}: {100 * used[role] / total:.0f} % of the CPU\n{table(stacks[role])}")


def _record(pid: int, output: Path) -> Counter[tuple[str, ...]]:
    """Return the stacks, outermost function first, with the number of samples of each."""
    spy = Path(sys.executable).with_name("py-spy")
    options = ("--duration", str(SECONDS), "--rate", str(LOOKS), "--format", "raw", "--function", "--nonblocking")
    done = subprocess.run(
        [spy, "record", "--pid", str(pid), *options, "--output", output], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"py-spy could not profile process {pid}: {done.stderr}")
    stacks: Counter[tuple[str, ...]] = Counter()
    for line in output.read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        stacks[tuple(stack.split(";"))] += int(count)
    return stacks


def table(stacks: Counter[tuple[str, ...]]) -> str:
    """Format the functions with the most CPU time: their own, and including the functions that they called."""
    own: Counter[str] = Counter()
    within: Counter[str] = Counter()
    for stack, count in stacks.items():
        own[stack[-1]] += count
        for function in set(stack):
            within[function] += count
    total = stacks.total() or 1
    lines = [f"{'own':>7} {'total':>9}  function"]
    for function, count in own.most_common(SHOWN):
        lines.append(f"{100 * count / total:6.1f}% {100 * within[function] / total:8.1f}%  {_short(function)}")
    return "\n".join(lines)


def _short(function: str) -> str:
    """Shorten the paths of packages."""
    return function.replace(os.getcwd() + "/", "").replace("site-packages/", "")  # noqa: PTH109 - py-spy's own text


if __name__ == "__main__":
    main()
