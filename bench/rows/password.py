"""The rate and latencies with the password hash of production."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from bench import hashing
from bench.generator import Load
from bench.report import Row, at_most, middle, ratio_at_least
from bench.running import Bench, in_turn

AT_ONCE = 50
# GETs of the login page per second during the load.
LOGINS = 5
SLOW_MS = 100


def real_hash(bench: Bench) -> Iterator[Row]:
    """Compare the sign-up rate with bare hashing, and measure whether other requests stay fast under that load."""
    size, ours = bench.size, bench.ours
    logins: list[Load] = []
    signups: list[Load] = []

    def bare() -> float:
        return hashing.bare_rate(hashing.REAL, size.seconds)

    def under_load() -> float:
        count = round(hashes * size.seconds)
        with ThreadPoolExecutor(1) as pool:
            gets = pool.submit(bench.generator.gets, ours.url, "/login/", round(LOGINS * size.seconds), rate=LOGINS)
            signups.append(bench.generator.signups(ours.url, count, at_once=AT_ONCE))
            logins.append(gets.result())
        return signups[-1].rate

    usual = ours.stack.roles["auth-1"].env
    with ours.with_environment("auth-1", {**usual, **hashing.REAL.settings}):
        hashes = bare()
        bench.generator.signups(ours.url, round(hashes), at_once=AT_ONCE)
        rates = in_turn(size.rounds, bare=bare, ours=under_load)
    yield Row(
        name=f"sign-ups with the real hash, {AT_ONCE} at once",
        unit="1/s",
        ours=middle(rates["ours"]),
        other=middle(rates["bare"]),
        against="bare hashing",
        goal=ratio_at_least(0.9),
    )
    yield Row(
        name="GET /login/ meanwhile, p99",
        unit="ms",
        ours=middle(load.first.p99 for load in logins),
        goal=at_most(SLOW_MS),
    )
    yield Row(
        name="streams meanwhile, first event to all green, p99",
        unit="ms",
        ours=middle(load.between.p99 for load in signups),
        goal=at_most(SLOW_MS),
    )
