"""Take samples of the product under load, and derive from them what each stage costs."""

import math
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Final
from urllib.request import urlopen

import msgspec

from bench.generator import Load, LoadError
from bench.installation import Installation
from bench.processes import CpuMeter
from bench.running import machine, tell
from bench.simulation.costs import Batch, Costs
from bench.simulation.model import PARTICIPANTS, PARTITIONS
from bench.simulation.recorded import Figures

CORES: Final = os.cpu_count() or 1
AUTH: Final = "auth-1"
# The threads of auth's process: the event loop, the hashing threads, and the others, of which the writer does most.
LOOP, HASH, SAVE = "auth's loop", "auth's hash", "auth's writer"
# Consumer groups, and the role that runs each.
GROUPS: Final = {"auth": "auth-results", **{name: name for name in PARTICIPANTS}}
WRITER: Final = "writer"

# The share of the cores that other programs may use during a sample, and the seconds to wait for that.
OTHERS_MAX: Final = 0.05
PATIENCE: Final = 600.0

# Generates a load at an address.
Generate = Callable[[str], Load]


class DisturbedError(Exception):
    """Other programs keep the machine busy."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One load. `events` is the mean number in a stream; `cpu` is in milliseconds per sign-up, of each process and of
    each kind of auth's threads; `batches` is the number of each group's batches, and of the writer's, per sign-up."""

    signups: int
    seconds: float
    figures: Figures
    events: float
    cpu: Mapping[str, float]
    batches: Mapping[str, float]
    others: float  # the share of the cores that other programs used

    def speed(self, idle: Mapping[str, float]) -> float:
        """Return the share of each core that is left for sign-ups by other programs, and by ours while idle."""
        return 1 - self.others - sum(idle.values()) / CORES

    def without(self, idle: Mapping[str, float]) -> "Sample":
        """Subtract what the processes use while idle."""
        each_ms = self.seconds * 1000 / self.signups
        cpu = {name: max(0.0, used - idle.get(name, 0.0) * each_ms) for name, used in self.cpu.items()}
        return replace(self, cpu=cpu)

    @classmethod
    def middle(cls, samples: Sequence["Sample"]) -> "Sample":
        """Return the medians of several samples of the same load."""
        figures = medians([msgspec.structs.asdict(sample.figures) for sample in samples])
        return cls(
            signups=samples[0].signups,
            seconds=median(sample.seconds for sample in samples),
            figures=Figures(**figures),
            events=median(sample.events for sample in samples),
            cpu=medians([sample.cpu for sample in samples]),
            batches=medians([sample.batches for sample in samples]),
            others=median(sample.others for sample in samples),
        )

    def __str__(self) -> str:
        costs = ", ".join(f"{name} {cost:.2f}" for name, cost in sorted(self.cpu.items(), key=lambda item: -item[1]))
        batches = ", ".join(f"{name} {number:.3f}" for name, number in self.batches.items())
        figures = ", ".join(f"{name} {value:.1f}" for name, value in msgspec.structs.asdict(self.figures).items())
        return (
            f"{figures}, {self.events:.2f} events; CPU ms: {costs}; batches: {batches}; "
            f"{self.others:.1%} of the cores used by others"
        )


class Sampler:
    """Takes samples of one installation."""

    def __init__(self, ours: Installation) -> None:
        self._ours = ours

    def idle(self, seconds: float = 6) -> Mapping[str, float]:
        """Return what each process uses while nobody signs up, in cores: it is part of no stage."""
        time.sleep(3)  # until nothing of the last load is left, such as a commit or a compiler's thread
        meter, begun = CpuMeter(self._ours.pids), time.monotonic()
        time.sleep(seconds)
        idle = {name: used / (time.monotonic() - begun) for name, used in meter.read().items()}
        tell("cores used while idle: " + ", ".join(f"{name} {share:.3f}" for name, share in idle.items()))
        return idle

    def sample(self, generate: Generate) -> Sample:
        """Return a sample that other programs have hardly disturbed; wait and repeat until it is one.

        Raises DisturbedError if that takes longer than PATIENCE."""
        until = time.monotonic() + PATIENCE
        has_told = False
        while time.monotonic() < until:
            if (others := self._others()) > OTHERS_MAX:
                if not has_told:
                    tell(f"waiting, as other programs use {others:.0%} of the cores")
                has_told = True
                continue
            try:
                taken = self._sample(generate)
            except LoadError as error:
                if self._others() <= OTHERS_MAX:
                    raise
                tell(f"repeated, as other programs disturbed the load: {error}")
                continue
            tell(str(taken))
            if taken.others <= OTHERS_MAX:
                return taken
        raise DisturbedError(
            f"other programs used more than {OTHERS_MAX:.0%} of the cores for {PATIENCE / 60:g} minutes"
        )

    def _others(self, seconds: float = 2) -> float:
        """Return the share of the cores that other programs use now."""
        meter, busy, begun = CpuMeter(self._ours.pids), _busy_seconds(), time.monotonic()
        time.sleep(seconds)
        return (_busy_seconds() - busy - meter.total()) / (time.monotonic() - begun) / CORES

    def _sample(self, generate: Generate) -> Sample:
        batches, threads = self._batches(), self._threads()
        meter, busy, begun = CpuMeter(self._ours.pids), _busy_seconds(), time.monotonic()
        load = generate(self._ours.url)
        seconds, busy, used = time.monotonic() - begun, _busy_seconds() - busy, meter.read()
        each = {name: count - threads.get(name, 0.0) for name, count in self._threads().items()}
        others = busy - sum(used.values()) - load.cpu_ms * load.n / 1000
        return Sample(
            load.n,
            seconds,
            Figures(load.rate, load.first.p50, load.first.p99, load.last.p50, load.last.p99),
            load.events,
            {name: cpu * 1000 / load.n for name, cpu in (used | _kinds(each, self._loop)).items()}
            | {"client": load.cpu_ms},
            {name: (number - batches[name]) / load.n for name, number in self._batches().items()},
            others / seconds / CORES,
        )

    @property
    def _loop(self) -> int:
        return self._ours.pid(AUTH)

    def _threads(self) -> dict[int, float]:
        """Return the CPU of each thread of auth's process so far, in seconds."""
        tasks = Path(f"/proc/{self._loop}/task")
        return {int(task.name): int((task / "schedstat").read_text().split()[0]) / 1e9 for task in tasks.iterdir()}

    def _batches(self) -> dict[str, float]:
        """Return the number of batches so far: of each group, from its metrics, and of auth's writer, from its log."""
        found = {}
        for group, role in GROUPS.items():
            with urlopen(f"http://127.0.0.1:{self._ours.stack.roles[role].port}/metrics", timeout=10) as answer:
                text = answer.read().decode()
            pattern = rf'^eventbus_batch_seconds_count{{group="{group}",topic="user.newUser.re[qs]"}} (\S+)$'
            found[group] = sum(map(float, re.findall(pattern, text, re.MULTILINE)))
        found[WRITER] = float(self._ours.stack.roles[AUTH].log().count("sign-ups accepted"))
        return found


def medians(values: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the median of each name's values."""
    return {name: median(each[name] for each in values) for name in values[0]}


def _kinds(threads: Mapping[int, float], loop: int) -> dict[str, float]:
    """Add up the CPU of auth's threads by kind. Those that hash are the ones that used most."""
    others = sorted((used for number, used in threads.items() if number != loop), reverse=True)
    return {LOOP: threads[loop], HASH: sum(others[:CORES]), SAVE: sum(others[CORES:])}


def _busy_seconds() -> float:
    """Return the CPU time that the programs of this machine have used, and that its host has withheld from it."""
    user, nice, system, _, _, interrupts, soft, stolen = map(int, Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + interrupts + soft + stolen) / os.sysconf("SC_CLK_TCK")


def disk_ms(directory: Path) -> float:
    """Return how long a write of 8 KiB takes to reach the disk."""
    took = []
    with (directory / "probe").open("wb", buffering=0) as file:
        for _ in range(200):
            begun = time.perf_counter()
            file.write(bytes(8192))
            os.fdatasync(file.fileno())
            took.append(1000 * (time.perf_counter() - begun))
    Path(file.name).unlink()
    return median(took)


def _requests(sample: Sample) -> float:
    """Return the requests with messages for Kafka, per sign-up: one for each partition of which a batch has any."""
    batches = [sample.batches[name] for name in (WRITER, *PARTICIPANTS)]
    return sum(number * PARTITIONS * (1 - math.pow(1 - 1 / PARTITIONS, 1 / number)) for number in batches)


def costs_of(samples: Sequence[Sample], disk: float) -> Costs:
    """Derive the stages' costs from loads whose batches differ in size.

    A sign-up passes through four transactions and three messages, in the batches of the writer, of each participant,
    and of auth's results, which read two answers.
    """

    def per_pass(name: str) -> Batch:
        # A stream's first event travels with its second: so a request and its events make as many passes as events.
        return Batch.through(
            (
                (sample.batches[WRITER] + sample.batches["auth"]) / sample.events,
                sample.cpu[name] / sample.events,
            )
            for sample in samples
        )

    def per_batch(name: str, *stages: str, items: int = 1) -> Batch:
        return Batch.through(
            (sum(sample.batches[stage] for stage in stages) / items, sample.cpu[name] / items) for sample in samples
        )

    participants = [per_batch(name, name) for name in PARTICIPANTS]
    return Costs(
        client=per_pass("client"),
        gateway=per_pass("caddy"),
        loop=per_pass(LOOP),
        hash=per_batch(HASH, WRITER),
        save=per_batch(SAVE, WRITER),
        participant=Batch(
            sum(each.fixed for each in participants) / len(participants),
            sum(each.item for each in participants) / len(participants),
        ),
        results=per_batch("auth-results", "auth", items=2),
        postgresql=per_batch("postgresql", WRITER, *GROUPS, items=5),
        kafka=Batch.through((_requests(sample) / 3, sample.cpu["kafka"] / 3) for sample in samples),
        redis=per_batch("redis", "auth", items=2),
        disk=disk,
        taken=f"{time.strftime('%Y-%m-%d')}, {machine()}",
    )
