"""The costs derived from samples of loads: known costs are recovered for any batch sizes."""

import math

import pytest

from bench.simulation.costs import Batch
from bench.simulation.model import PARTITIONS
from bench.simulation.recorded import Figures
from bench.simulation.samples import HASH, LOOP, SAVE, Sample, costs_of

EVENTS = 3.0
IDLE = {"kafka": 0.05, "postgresql": 0.01}


def sample(size: float, *, factor: float = 1.0, seconds: float = 10.0) -> Sample:
    """A load of 100 sign-ups whose batches have this size, and whose processes also do some work while idle."""
    batches = {"writer": 1 / size, "auth": 2 / size, "chat": 1 / size, "customer": 1 / size}
    requests = 3 * PARTITIONS * (1 - math.pow(1 - 1 / PARTITIONS, size)) / size
    cpu = {
        "client": 0.3 * batches["writer"] + 0.3 * batches["auth"] + 0.1 * EVENTS,
        "caddy": 0.6 * batches["writer"] + 0.6 * batches["auth"] + 0.2 * EVENTS,
        LOOP: 0.8 * batches["writer"] + 0.8 * batches["auth"] + 0.4 * EVENTS,
        HASH: 1 * batches["writer"] + 20,
        SAVE: 2 * batches["writer"] + 0.5,
        "chat": 3 * batches["chat"] + 0.25,
        "customer": 5 * batches["customer"] + 0.75,
        "auth-results": 4 * batches["auth"] + 2 * 0.5,
        "redis": 0.5 * batches["auth"] + 2 * 0.1,
        "postgresql": 0.6 * sum(batches.values()) + 5 * 0.1 + IDLE["postgresql"] * seconds * 10,
        "kafka": 1.5 * requests + 3 * 0.2 + IDLE["kafka"] * seconds * 10,
    }
    figures = Figures(rate=10, first_p50=1, first_p99=2, last_p50=3, last_p99=4)
    return Sample(100, seconds, figures, EVENTS, {name: used * factor for name, used in cpu.items()}, batches, 0.02)


def close(fixed: float, item: float) -> Batch:
    return Batch(pytest.approx(fixed), pytest.approx(item))


def test_the_fit_recovers_known_costs():
    costs = costs_of([sample(size).without(IDLE) for size in (1, 2, 8, 50)], disk=0.2)

    assert costs.client == close(0.3, 0.1)
    assert costs.gateway == close(0.6, 0.2)
    assert costs.loop == close(0.8, 0.4)
    assert costs.hash == close(1, 20)
    assert costs.save == close(2, 0.5)
    assert costs.participant == close(4, 0.5)
    assert costs.results == close(4, 0.5)
    assert costs.redis == close(0.5, 0.1)
    assert costs.postgresql == close(0.6, 0.1)
    assert costs.kafka == close(1.5, 0.2)
    assert costs.disk == 0.2


def test_one_disturbed_round_of_three_changes_nothing():
    usual = sample(8)
    assert Sample.middle([usual, sample(8, factor=3), usual]).cpu == usual.cpu


def test_other_programs_and_idle_roles_leave_less_of_each_core(monkeypatch):
    monkeypatch.setattr("bench.simulation.samples.CORES", 2)
    assert sample(8).speed(IDLE) == pytest.approx(1 - 0.02 - 0.03)
