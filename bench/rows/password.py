"""The rate and latencies with the password hash of production."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from bench import hashing
from bench.generator import Load
from bench.report import Row, at_most, middle, ratio_at_least
from bench.running import Bench, in_turn, tell

AT_ONCE = 50
# GETs of the login page per second during the load.
LOGINS = 5
SLOW_MS = 100


def real_hash(bench: Bench) -> Iterator[Row]:
    """Compare the sign-up rate with bare hashing, measure the latency of the lights under that load, under half of it
    and alone, and whether other requests stay fast meanwhile."""
    size, ours = bench.size, bench.ours
    bare: list[float] = []
    logins: list[Load] = []

    def crowd() -> Load:
        bare.append(hashing.bare(hashing.REAL, size.seconds).rate)
        count = round(hashes * size.seconds)
        with ThreadPoolExecutor(1) as pool:
            gets = pool.submit(bench.generator.gets, ours.url, "/login/", round(LOGINS * size.seconds), rate=LOGINS)
            load = bench.generator.signups(ours.url, count, at_once=AT_ONCE)
            logins.append(gets.result())
        tell(f"bare hashing: {bare[-1]:.1f}/s")
        return load

    def half() -> Load:
        return bench.generator.signups(ours.url, round(hashes / 2 * size.seconds), at_once=AT_ONCE, rate=hashes / 2)

    def alone() -> Load:
        return bench.generator.signups(ours.url, size.alone // 3)

    usual = ours.stack.roles["auth-1"].env
    with ours.with_environment("auth-1", {**usual, **hashing.REAL.settings}):
        hashes = hashing.bare(hashing.REAL, size.seconds).rate
        bench.generator.signups(ours.url, round(hashes), at_once=AT_ONCE)
        loads = in_turn(size.rounds, crowd=crowd, half=half, alone=alone)
    yield Row(
        name=f"sign-ups with the real hash, {AT_ONCE} at once",
        unit="1/s",
        ours=middle(load.rate for load in loads["crowd"]),
        other=middle(bare),
        against="bare hashing",
        goal=ratio_at_least(0.9),
        felt=True,
    )
    shown = {"half": "at half the rate of bare hashing", "alone": "alone", "crowd": f"{AT_ONCE} at once"}
    for name, when in shown.items():
        for percentile in ("p50", "p99"):
            yield Row(
                name=f"until all green with the real hash, {when}, {percentile}",
                unit="ms",
                ours=middle(getattr(load.last, percentile) for load in loads[name]),
                felt=True,
            )
    yield Row(
        name="streams meanwhile, first event to all green, p99",
        unit="ms",
        ours=middle(load.between.p99 for load in loads["crowd"]),
        goal=at_most(SLOW_MS),
        felt=True,
    )
    yield Row(
        name="GET /login/ meanwhile, p99",
        unit="ms",
        ours=middle(load.first.p99 for load in logins),
        goal=at_most(SLOW_MS),
    )
