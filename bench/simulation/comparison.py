"""`make simulate-check`: measure the stages' costs and a result in one run, and compare it with the simulated result.

The costs come from two loads, one sign-up at a time and a few at once: the difference shows which part of a cost a
batch shares. The result is that of a third load, with more at once. Its own CPU time is not an input; the cores that
other processes of the machine left to it are.
"""

import argparse
import os
import re
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.request import urlopen

from bench import hashing
from bench.generator import Generator, Load
from bench.installation import Installation, installation, servers
from bench.processes import CpuMeter
from bench.running import machine, tell
from bench.simulation.costs import MEASURED, Batch, Costs
from bench.simulation.model import PARTICIPANTS, Scenario, simulate
from bench.simulation.volumes import Volumes

GROUPS = ("auth", *PARTICIPANTS)
ALONE, TOGETHER = 1, 8
# The goal: the simulated figures differ from the measured ones by at most this share.
WITHIN = 0.2


@dataclass(frozen=True, slots=True)
class Sample:
    """One load. `cpu` is in milliseconds per sign-up."""

    load: Load
    seconds: float
    cpu: Mapping[str, float]
    batches: Mapping[str, float]  # the mean size of each group's batches
    cores: float  # that other processes left

    def without(self, idle: Mapping[str, float]) -> "Sample":
        """Subtract the CPU that the processes use while idle, given in cores."""
        each_ms = self.seconds * 1000 / self.load.n
        return replace(
            self, cpu={name: max(0.0, used - idle.get(name, 0.0) * each_ms) for name, used in self.cpu.items()}
        )

    def __str__(self) -> str:
        costs = ", ".join(f"{name} {cost:.2f}" for name, cost in sorted(self.cpu.items(), key=lambda item: -item[1]))
        sizes = ", ".join(f"{name} {size:.1f}" for name, size in self.batches.items())
        return f"{self.load}; CPU ms: {costs}; batches: {sizes}; {self.cores:.2f} cores"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.simulation.comparison")
    parser.add_argument("--signups", type=int, default=1500, help="of the load that is compared; default: %(default)s")
    parser.add_argument("--at-once", type=int, default=50, help="of that load; default: %(default)s")
    parser.add_argument("--save", action="store_true", help="make these the costs that `make simulate` uses")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="signup-sync-simulation-", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o711)
        generator = Generator(Path(name))
        with servers() as shared, installation(shared, **hashing.REAL.settings) as ours:
            is_close = compare(generator, ours, options.signups, at_once=options.at_once, save=options.save)
    sys.exit(0 if is_close else 1)


def compare(generator: Generator, ours: Installation, signups: int, *, at_once: int, save: bool) -> bool:
    tell("warming up")
    generator.signups(ours.url, signups // 5, at_once=TOGETHER)
    alone = sample(generator, ours, signups // 15, ALONE)
    together = sample(generator, ours, signups // 5, TOGETHER)
    hash_ms = hashing.bare(hashing.REAL, 2).cpu_ms
    volumes = Volumes(ours)
    measured = sample(generator, ours, signups, at_once)
    written = volumes.read(signups)
    idle = idle_share(ours)
    tell("cores used while idle: " + ", ".join(f"{name} {share:.3f}" for name, share in idle.items()))
    costs = costs_of(alone.without(idle), together.without(idle), hash_ms)
    if save:
        costs.save_to(MEASURED)
    # What the roles use while idle is not part of any stage.
    cores = measured.cores - sum(idle.values())
    scenario = Scenario(signups=signups, at_once=at_once, cores=cores, hashing_threads=os.cpu_count() or 1)
    result = simulate(costs, scenario)
    print(f"{machine()}; {at_once} at once, {cores:.2f} cores left by other processes and idle roles\n")
    print("| | measured | simulated | ratio |\n| --- | --- | --- | --- |")
    ratios = [
        told("sign-ups, 1/s", measured.load.rate, result.rate),
        told("until all lights are green, p50, ms", measured.load.last.p50, result.percentile(0.5)),
        told("until all lights are green, p99, ms", measured.load.last.p99, result.percentile(0.99)),
    ]
    between = [result.percentile(share, lambda each: each.last - each.first) for share in (0.5, 0.99)]
    told("from the first event to all green, p50, ms", measured.load.between.p50, between[0])
    told("from the first event to all green, p99, ms", measured.load.between.p99, between[1])
    print("\n| bytes per sign-up | |\n| --- | --- |")
    for name, size in written.items():
        print(f"| {name} | {size:,.0f} |")
    return all(1 - WITHIN <= ratio <= 1 + WITHIN for ratio in ratios)


def told(name: str, measured: float, simulated: float) -> float:
    print(f"| {name} | {measured:.1f} | {simulated:.1f} | {simulated / measured:.2f} |")
    return simulated / measured


def idle_share(ours: Installation) -> Mapping[str, float]:
    """Return the share of a core that each process uses while nobody signs up."""
    time.sleep(3)  # until nothing of the load is left, such as a commit or a compiler's thread
    meter, begun = CpuMeter(ours.pids), time.monotonic()
    time.sleep(6)
    return {name: seconds / (time.monotonic() - begun) for name, seconds in meter.read().items()}


def sample(generator: Generator, ours: Installation, signups: int, at_once: int) -> Sample:
    before = counts(ours)
    meter, all_before, begun = CpuMeter(ours.pids), busy_seconds(), time.monotonic()
    load = generator.signups(ours.url, signups, at_once=at_once)
    seconds, busy, used = time.monotonic() - begun, busy_seconds() - all_before, meter.read()
    others = busy - sum(used.values()) - load.cpu_ms * signups / 1000
    after = counts(ours)
    taken = Sample(
        load,
        seconds,
        {name: each * 1000 / signups for name, each in used.items()} | {"client": load.cpu_ms},
        {name: signups * (2 if name == "auth" else 1) / max(1, after[name] - before[name]) for name in after},
        (os.cpu_count() or 1) - others / seconds,
    )
    tell(f"{at_once} at once: {taken}")
    return taken


def counts(ours: Installation) -> dict[str, float]:
    """Return the number of batches so far: of each group, from its metrics, and of auth's writer, from its log."""
    roles = dict(zip(GROUPS, ("auth-results", *PARTICIPANTS), strict=True))
    found = {}
    for group, role in roles.items():
        with urlopen(f"http://127.0.0.1:{ours.stack.roles[role].port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        pattern = rf'^eventbus_batch_seconds_count{{group="{group}",topic="user.newUser.re[qs]"}} (\S+)$'
        found[group] = sum(map(float, re.findall(pattern, text, re.MULTILINE)))
    found["writer"] = float(ours.stack.roles["auth-1"].log().count("sign-ups accepted"))
    return found


def busy_seconds() -> float:
    """Return the CPU time of all processes of the machine."""
    user, nice, system, _, _, interrupts, soft = map(int, Path("/proc/stat").read_text().split(maxsplit=8)[1:8])
    return (user + nice + system + interrupts + soft) / os.sysconf("SC_CLK_TCK")


def costs_of(alone: Sample, together: Sample, hash_ms: float) -> Costs:
    """Split each process's CPU per sign-up into the stages' costs.

    A sign-up passes through four transactions and three messages, in the batches of the writer, of both participants
    and of auth's results, which reads two answers. Auth's CPU outside the hash and the fixed part of a batch is divided
    evenly among reading the request, saving it, and the events of its stream.
    """
    sizes = together.batches
    size = sum(sizes.values()) / len(sizes)

    def split(name: str, of: float, batch: float) -> Batch:
        return Batch.between(alone.cpu[name] / of, together.cpu[name] / of, batch)

    auth = Batch.between(alone.cpu["auth-1"] - hash_ms, together.cpu["auth-1"] - hash_ms, sizes["writer"])
    participants = [split(name, 1, sizes[name]) for name in PARTICIPANTS]
    return Costs(
        client=together.cpu["client"],
        gateway=together.cpu["caddy"],
        request=auth.item / 3,
        hash=hash_ms,
        save=Batch(auth.fixed, auth.item / 3),
        event=auth.item / 9,
        participant=Batch(sum(each.fixed for each in participants) / 2, sum(each.item for each in participants) / 2),
        results=split("auth-results", 2, sizes["auth"]),
        postgresql=split("postgresql", 5, size),
        kafka=split("kafka", 3, size),
        redis=split("redis", 2, sizes["auth"]),
        taken=f"{time.strftime('%Y-%m-%d')}, {machine()}",
    )


if __name__ == "__main__":
    main()
