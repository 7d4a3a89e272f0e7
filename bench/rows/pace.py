"""Sign-up rate, CPU per sign-up, and the latency of a single sign-up."""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from statistics import median

from bench import hashing
from bench.floor import Floor, floor_databases
from bench.generator import Load
from bench.installation import Installation
from bench.processes import CpuMeter
from bench.report import Goal, Row, middle, ratio_at_least, ratio_at_most, rows_against
from bench.running import Bench, in_turn, tell

AT_ONCE = 200
OURS = "ours"


@dataclass(frozen=True, slots=True)
class Pace:
    """One round of sign-ups. `cpu` is the milliseconds per sign-up, by process; `hash_ms` the milliseconds of one bare
    hash, measured just before."""

    load: Load
    cpu: Mapping[str, float]
    hash_ms: float

    @property
    def cpu_ms(self) -> float:
        return sum(self.cpu.values())

    @property
    def cpu_without_hash(self) -> float:
        return self.cpu_ms - self.hash_ms

    @property
    def rate_without_hash(self) -> float:
        """The rate if hashing cost nothing: the time of all cores per sign-up, without that of the hash."""
        cores_ms = 1000 * (os.cpu_count() or 1)
        return cores_ms / (cores_ms / self.load.rate - self.hash_ms)

    def __str__(self) -> str:
        return f"{self.cpu_ms:.2f} ms CPU each, {self.hash_ms:.2f} of it for the hash; {self.load}"

    def shares(self) -> str:
        dearest = sorted(self.cpu.items(), key=lambda item: -item[1])
        return ", ".join(f"{name} {cost:.2f}" for name, cost in dearest)


def measure(bench: Bench, url: str, pids: Mapping[str, int], n: int, hash_ms: Callable[[float], float]) -> Pace:
    """Measure `n` sign-ups; `hash_ms` measures the CPU of a bare hash for some seconds."""
    hashed = hash_ms(bench.size.seconds / 5)
    meter = CpuMeter(pids)
    load = bench.generator.signups(url, n, at_once=AT_ONCE)
    return Pace(load, {name: seconds * 1000 / n for name, seconds in meter.read().items()}, hashed)


Of = Callable[[Pace], float]


def warm_up(bench: Bench, ours: Installation) -> None:
    bench.generator.signups(ours.url, bench.size.warm_up, at_once=AT_ONCE)


def throughput(bench: Bench) -> Iterator[Row]:
    """With 200 at once, measure the rate, the CPU, and our p99 against the peers' p50."""
    size, ours, peers = bench.size, bench.ours, bench.running_peers()
    tell("warming up")
    warm_up(bench, ours)
    for peer in peers:
        bench.generator.signups(peer.url, size.peer_warm_up, at_once=AT_ONCE)
    measures = {OURS: partial(measure, bench, ours.url, ours.pids, size.signups, _cheap_hash_ms(bench))} | {
        peer.name: partial(measure, bench, peer.url, peer.pids, size.peer_signups, peer.hash_ms) for peer in peers
    }
    paces = in_turn(size.rounds, **measures)
    for name, rounds in paces.items():
        tell(f"CPU ms of a sign-up, {name}: {rounds[-1].shares()}")

    def rows(name: str, unit: str, goal: Goal | None, mine: Of, theirs: Of | None = None) -> Iterator[Row]:
        figures = {who: middle(map(mine if who == OURS else theirs or mine, rounds)) for who, rounds in paces.items()}
        return rows_against(figures, name=name, unit=unit, ours=figures.pop(OURS), goal=goal)

    yield from rows(
        f"sign-ups until all green, {AT_ONCE} at once", "1/s", ratio_at_least(4), lambda pace: pace.load.rate
    )
    yield from rows(
        f"our p99 and the peer's p50, {AT_ONCE} at once",
        "ms",
        ratio_at_most(1),
        lambda pace: pace.load.last.p99,
        lambda pace: pace.load.last.p50,
    )
    yield from rows("CPU of a sign-up, all processes", "ms", ratio_at_most(0.2), lambda pace: pace.cpu_ms)
    yield from rows("CPU of a sign-up without its hash", "ms", None, lambda pace: pace.cpu_without_hash)
    yield from rows("sign-ups if the hash cost nothing", "1/s", None, lambda pace: pace.rate_without_hash)


def _cheap_hash_ms(bench: Bench) -> Callable[[float], float]:
    return lambda seconds: hashing.bare(bench.cheap_hash, seconds).cpu_ms


def alone(bench: Bench) -> Iterator[Row]:
    """Measure the time until all green, one sign-up at a time."""
    size, ours, peers = bench.size, bench.ours, bench.running_peers()

    def p50(url: str) -> float:
        return bench.generator.signups(url, size.alone, at_once=1).last.p50

    tell("warming up")
    warm_up(bench, ours)
    for peer in peers:
        bench.generator.signups(peer.url, size.peer_warm_up // 4, at_once=10)
    with floor_of(ours) as floor:
        floor.sign_ups(size.alone // 3)
        times = in_turn(
            size.rounds,
            **{OURS: lambda: p50(ours.url), "floor": lambda: median(floor.sign_ups(size.alone))},
            **{peer.name: partial(p50, peer.url) for peer in peers},
        )
    mine, least = (middle(times.pop(name)) for name in (OURS, "floor"))
    name = "alone, until all green, p50"
    others = {peer: middle(taken) for peer, taken in times.items()}
    yield from rows_against(others, name=name, unit="ms", ours=mine, goal=ratio_at_most(0.5), felt=True)
    yield Row(name=name, unit="ms", ours=mine, other=least, against="floor", goal=ratio_at_most(1.5))


def floor_of(ours: Installation) -> Floor:
    """Return the floor on the same servers and databases as an installation."""
    env = ours.stack.env | ours.stack.owner_env
    return Floor(floor_databases(env), env["KAFKA_BOOTSTRAP_SERVERS"], env["REDIS_URL"])
