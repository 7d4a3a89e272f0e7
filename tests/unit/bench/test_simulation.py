"""The simulation where its result is known: the cores, the queues, the batches, and a participant that is away."""

from functools import partial

import msgspec
import pytest

from bench.simulation.costs import Batch, Costs, read_costs
from bench.simulation.engine import BatchStage, Machine, Process
from bench.simulation.model import Scenario, simulate

NOTHING = Batch(0, 0)
FREE = Costs(0, 0, 0, 0, NOTHING, 0, NOTHING, NOTHING, NOTHING, NOTHING, NOTHING)


def test_three_jobs_on_two_cores_progress_at_two_thirds():
    machine, ends = Machine(2), {}
    for name in "abc":
        machine.compute(10, lambda name=name: ends.update({name: machine.now}))
    machine.after(6, lambda: machine.compute(2, lambda: ends.update({"late": machine.now})))

    machine.run()

    # Until 6 ms each did 4. The late one then gets half a core, and its 2 ms take 4.
    assert ends["late"] == pytest.approx(10)
    assert ends["a"] == ends["b"] == ends["c"] == pytest.approx(10 + 4 / (2 / 3))


def test_a_process_does_one_job_after_another_whatever_the_number_of_cores():
    machine, ends = Machine(8), []
    process = Process(machine)
    for _ in range(3):
        process.do(5, lambda: ends.append(machine.now))

    machine.run()

    assert ends == [5, 10, 15]


def test_what_arrives_during_a_batch_forms_the_next_one():
    machine, batches = Machine(1), []
    stage = BatchStage([lambda size, done: machine.compute(10 + size, done)], batches.append, most=3)
    for at in (0, 1, 2, 3, 4):
        machine.after(at, partial(stage.add, at))

    machine.run()

    assert batches == [[0], [1, 2, 3], [4]]
    assert machine.now == pytest.approx(11 + 13 + 11)


def test_the_hash_bounds_the_rate():
    costs = msgspec.structs.replace(FREE, hash=20.0)
    assert simulate(costs, Scenario(signups=1000, at_once=50)).rate == pytest.approx(100, rel=0.05)
    assert simulate(costs, Scenario(signups=1000, at_once=50, cores=1)).rate == pytest.approx(50, rel=0.05)
    four = Scenario(signups=1000, at_once=50, cores=4, auths=2)
    assert simulate(costs, four).rate == pytest.approx(200, rel=0.1)


def test_a_single_sign_up_takes_the_cpu_on_its_way():
    costs = Costs(1, 1, 1, 20, Batch(1, 1), 1, Batch(2, 1), Batch(2, 1), Batch(1, 0), Batch(1, 0), Batch(1, 0))
    result = simulate(costs, Scenario(signups=1, at_once=1, cores=8))
    # Client and gateway, request and hash; save, query and message; a participant, its query and its message; auth's
    # results, its query and the wake-up, twice, as one answer just precedes the other; the last event, the way back.
    assert result.percentile(0.5) == pytest.approx((1 + 1 + 20) + (2 + 1 + 1) + (3 + 1 + 1) + 2 * (3 + 1 + 1) + 1 + 1)


def test_sign_ups_wait_for_a_participant_that_is_away_and_end_when_it_is_back():
    result = simulate(read_costs(), Scenario(signups=600, rate=20, cores=2, away=("chat", 5, 25)))

    assert len([each for each in result.signups if len(each.lights) == 3]) == 600
    during = [each for each in result.signups if 6_000 < each.begun < 24_000]
    assert all(each.lights["chat"] > 25_000 > each.lights["customer"] for each in during)
    assert result.deepest["chat"] > len(during)
    assert result.repeated > 0
    assert 25 < result.caught_up < 26


def test_costs_alone_and_together_show_what_a_batch_shares():
    assert Batch.between(12.0, 3.0, 10) == Batch(pytest.approx(10), pytest.approx(2))
    assert Batch.between(2.0, 3.0, 10) == Batch(0, 3)
