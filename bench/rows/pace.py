"""Sign-up rate, CPU per sign-up, and the latency of a single sign-up."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import median

from bench.floor import Floor, floor_databases
from bench.generator import Load
from bench.installation import Installation
from bench.processes import CpuMeter
from bench.report import Row, middle, ratio_at_least, ratio_at_most
from bench.running import Bench, in_turn, tell

AT_ONCE = 200


@dataclass(frozen=True, slots=True)
class Pace:
    """One round of sign-ups. `cpu` is the milliseconds per sign-up, by process."""

    load: Load
    cpu: Mapping[str, float]

    @property
    def cpu_ms(self) -> float:
        return sum(self.cpu.values())

    def __str__(self) -> str:
        load = self.load
        return (
            f"{load.rate:,.0f}/s, {self.cpu_ms:.2f} ms CPU each, until all green p50 {load.last.p50:.1f} "
            f"p99 {load.last.p99:.1f} ms, the load's own CPU {load.cpu_ms:.2f} ms"
        )

    def shares(self) -> str:
        dearest = sorted(self.cpu.items(), key=lambda item: -item[1])
        return ", ".join(f"{name} {cost:.2f}" for name, cost in dearest)


def measure(bench: Bench, url: str, pids: Mapping[str, int], n: int, at_once: int) -> Pace:
    meter = CpuMeter(pids)
    load = bench.generator.signups(url, n, at_once=at_once)
    return Pace(load, {name: seconds * 1000 / n for name, seconds in meter.read().items()})


def warm_up(bench: Bench, ours: Installation) -> None:
    bench.generator.signups(ours.url, bench.size.warm_up, at_once=AT_ONCE)


def throughput(bench: Bench) -> Iterator[Row]:
    """With 200 at once, measure the rate, the CPU, and our p99 against the peer's p50."""
    size, ours, peer = bench.size, bench.ours, bench.running_peer()
    tell("warming up")
    warm_up(bench, ours)
    measures = {"ours": lambda: measure(bench, ours.url, ours.pids, size.signups, AT_ONCE)}
    if peer is not None:
        bench.generator.signups(peer.url, size.peer_warm_up, at_once=AT_ONCE)
        measures["peer"] = lambda: measure(bench, peer.url, peer.pids, size.peer_signups, AT_ONCE)
    paces = in_turn(size.rounds, **measures)
    for name, rounds in paces.items():
        tell(f"CPU ms of a sign-up, {name}: {rounds[-1].shares()}")
    mine, others = paces["ours"], paces.get("peer", [])
    yield Row(
        name=f"sign-ups until all green, {AT_ONCE} at once",
        unit="1/s",
        ours=middle(pace.load.rate for pace in mine),
        other=middle(pace.load.rate for pace in others),
        against="Spring peer",
        goal=ratio_at_least(4),
    )
    yield Row(
        name=f"our p99 and the peer's p50, {AT_ONCE} at once",
        unit="ms",
        ours=middle(pace.load.last.p99 for pace in mine),
        other=middle(pace.load.last.p50 for pace in others),
        against="Spring peer",
        goal=ratio_at_most(1),
    )
    yield Row(
        name="CPU of a sign-up, all processes",
        unit="ms",
        ours=middle(pace.cpu_ms for pace in mine),
        other=middle(pace.cpu_ms for pace in others),
        against="Spring peer",
        goal=ratio_at_most(0.2),
    )


def alone(bench: Bench) -> Iterator[Row]:
    """Measure the time until all green, one sign-up at a time."""
    size, ours, peer = bench.size, bench.ours, bench.running_peer()

    def p50(url: str) -> float:
        return bench.generator.signups(url, size.alone, at_once=1).last.p50

    tell("warming up")
    warm_up(bench, ours)
    with floor_of(ours) as floor:
        measures = {"ours": lambda: p50(ours.url), "floor": lambda: median(floor.sign_ups(size.alone))}
        if peer is not None:
            bench.generator.signups(peer.url, size.peer_warm_up // 4, at_once=10)
            measures["peer"] = lambda: p50(peer.url)
        floor.sign_ups(size.alone // 3)
        times = in_turn(size.rounds, **measures)
    yield Row(
        name="alone, until all green, p50",
        unit="ms",
        ours=middle(times["ours"]),
        other=middle(times.get("peer", [])),
        against="Spring peer",
        goal=ratio_at_most(0.5),
    )
    yield Row(
        name="alone, until all green, p50",
        unit="ms",
        ours=middle(times["ours"]),
        other=middle(times["floor"]),
        against="floor",
        goal=ratio_at_most(1.5),
    )


def floor_of(ours: Installation) -> Floor:
    """Return the floor on the same servers and databases as an installation."""
    env = ours.stack.env | ours.stack.owner_env
    return Floor(floor_databases(env), env["KAFKA_BOOTSTRAP_SERVERS"], env["REDIS_URL"])
