"""A small benchmark in every test run, to reveal slow changes. `make bench` measures the performance goals."""

import statistics
import time
from collections.abc import Iterator

import pytest

from bench.floor import Floor, floor_databases
from tests.client import sign_up
from tests.conftest import new_person, new_stack
from tests.plugin import Backing
from tests.stack import Stack

pytestmark = [pytest.mark.alone, pytest.mark.needs("application", "caddy")]

WARM_UP = 20
ROUNDS = 3
SIGNUPS = 30
# The cheapest costs that argon2 accepts, well under a millisecond: the rest of the time is the product's own.
CHEAP_HASH = {"ARGON2_MEMORY_KIB": "64", "ARGON2_TIME_COST": "1"}


@pytest.fixture
def quick_stack(backing: Backing) -> Iterator[Stack]:
    with new_stack(backing, **CHEAP_HASH) as stack:
        yield stack


def milliseconds_until_all_green(stack: Stack) -> float:
    begun = time.perf_counter()
    *_, last = sign_up(stack, new_person().form)
    assert set(last.statuses.values()) == {"SUCCESS"}
    return (time.perf_counter() - begun) * 1000


def test_a_single_sign_up_stays_close_to_the_floor(quick_stack: Stack, capsys: pytest.CaptureFixture[str]) -> None:
    ours: list[float] = []
    floor: list[float] = []
    env = quick_stack.env | quick_stack.owner_env
    with Floor(floor_databases(env), env["KAFKA_BOOTSTRAP_SERVERS"], env["REDIS_URL"]) as bare:
        bare.sign_ups(WARM_UP)
        for _ in range(WARM_UP):
            milliseconds_until_all_green(quick_stack)
        for _ in range(ROUNDS):
            ours += [milliseconds_until_all_green(quick_stack) for _ in range(SIGNUPS)]
            floor += bare.sign_ups(SIGNUPS)
    mine, least = statistics.median(ours), statistics.median(floor)
    with capsys.disabled():
        print(f"\npace: alone until all green {mine:.1f} ms, the floor {least:.1f} ms, ratio {mine / least:.2f}")
