"""The simulation in cases with a known result: the cores, the queues, the batches, and a participant that is away."""

import random
from functools import partial
from itertools import accumulate
from statistics import mean

import msgspec
import pytest
from django.conf import settings

from authsvc.management.commands import relay_signups
from authsvc.signups import answers, hash_pool
from bench.simulation import model
from bench.simulation.costs import Batch, Costs
from bench.simulation.engine import Machine
from bench.simulation.model import FIRST_PAUSE, Scenario, simulate
from bench.simulation.queues import BatchStage, Process
from livesettings.values import live

NOTHING = Batch(0, 0)
FREE = Costs(NOTHING, NOTHING, NOTHING, NOTHING, NOTHING, NOTHING, NOTHING, NOTHING, NOTHING, NOTHING, disk=0)
COSTS = Costs(
    client=Batch(0, 0.1),
    gateway=Batch(0, 0.2),
    loop=Batch(0.5, 0.2),
    hash=Batch(1, 19),
    save=Batch(1, 1),
    participant=Batch(2, 1),
    results=Batch(2, 1),
    postgresql=Batch(1, 0),
    kafka=Batch(1, 0),
    redis=Batch(1, 0),
    disk=3,
)


# --- Queues whose mean wait is known


@pytest.mark.parametrize(("kind", "factor"), [("M/D/1", 0.5), ("M/M/1", 1.0)])
def test_a_queue_waits_as_long_as_the_formula_says(kind, factor):
    # Pollaczek and Khinchine: with a mean service time of 1, factor * load / (1 - load).
    at_random, load = random.Random(16), 0.5
    machine, waits = Machine(1), []
    process = Process(machine, 1)

    def arrive() -> None:
        cpu = 1.0 if kind == "M/D/1" else at_random.expovariate(1)
        begun = machine.now
        process.do(cpu, lambda: waits.append(machine.now - begun - cpu))

    for due in accumulate(at_random.expovariate(load) for _ in range(50_000)):
        machine.after(due, arrive)
    machine.run()

    assert mean(waits) == pytest.approx(factor * load / (1 - load), rel=0.05)


# --- The scheduler


def ends_of(machine: Machine, **jobs: tuple[Process, float, float]) -> dict[str, float]:
    """Run jobs, each of a process, at a time and for some CPU; return when each ended."""
    ends: dict[str, float] = {}
    for name, (process, at, cpu) in jobs.items():
        machine.after(at, partial(process.do, cpu, lambda name=name: ends.update({name: machine.now})))
    machine.run()
    return ends


def test_a_process_that_wakes_interrupts_one_that_has_run_for_a_slice():
    machine = Machine(1, slice_=2, tick=5)
    ends = ends_of(machine, hash=(Process(machine), 0, 30), woken=(Process(machine), 8, 1))
    assert ends == {"woken": 9, "hash": 31}


def test_a_process_that_wakes_within_a_slice_waits_for_the_next_tick():
    machine = Machine(1, slice_=2, tick=5)
    ends = ends_of(machine, hash=(Process(machine), 0, 30), woken=(Process(machine), 1, 1))
    assert ends == {"woken": 6, "hash": 31}


def test_two_processes_that_compute_all_the_time_get_equal_shares():
    machine = Machine(1)
    ends = ends_of(machine, one=(Process(machine), 0, 100), other=(Process(machine), 0, 100))
    assert ends["one"] == pytest.approx(200, abs=10)
    assert ends["other"] == pytest.approx(200, abs=10)


def test_threads_of_one_process_share_what_it_gets():
    machine = Machine(1)
    many = Process(machine)
    ends = ends_of(machine, alone=(Process(machine), 0, 100), one=(many, 0, 100), other=(many, 0, 100))
    assert ends["alone"] == pytest.approx(200, abs=10)
    assert ends["one"] == pytest.approx(300, abs=15)
    assert ends["other"] == pytest.approx(300, abs=15)


def test_an_event_loop_interrupts_the_hashing_threads_of_its_own_process():
    machine = Machine(2, slice_=2, tick=5)
    loop = Process(machine, 1)
    hashes = Process(machine, 2, share=loop.share)
    ends = ends_of(machine, one=(hashes, 0, 30), other=(hashes, 0, 30), woken=(loop, 8, 1))
    assert ends["woken"] == 9


@pytest.mark.parametrize("is_one_process", [False, True])
def test_sleep_earns_no_credit(is_one_process):
    machine = Machine(1, slice_=1, tick=1)
    busy = Process(machine)
    sleeper = busy if is_one_process else Process(machine)
    ends = ends_of(machine, busy=(busy, 0, 200), long=(sleeper, 100, 50))
    # From 100 ms on, each gets half, although the sleeper has had nothing before.
    assert ends["long"] == pytest.approx(200, abs=2)


def test_a_thread_goes_on_with_its_next_job_without_losing_its_core():
    machine = Machine(1, slice_=2, tick=5)
    hashes = Process(machine, 1)
    ends = ends_of(machine, first=(hashes, 0, 1), next=(hashes, 0, 1), woken=(Process(machine), 0.5, 1))
    assert ends == {"first": 1, "next": 2, "woken": 3}


def test_other_programs_slow_every_core():
    machine = Machine(2, speed=0.5)
    assert ends_of(machine, job=(Process(machine), 0, 10)) == {"job": 20}


# --- Processes and batches


def test_a_process_does_one_job_after_another_whatever_the_number_of_cores():
    machine, ends = Machine(8), []
    process = Process(machine, 1)
    for _ in range(3):
        process.do(5, lambda: ends.append(machine.now))

    machine.run()

    assert ends == [5, 10, 15]


def test_what_arrives_during_a_batch_forms_the_next_one():
    machine, batches = Machine(1), []
    process = Process(machine, 1)
    stage = BatchStage(machine, [lambda batch, done: process.do(10 + len(batch), done)], batches.append, most=3)
    for at in (0, 1, 2, 3, 4):
        machine.after(at, partial(stage.add, at))

    machine.run()

    assert batches == [[0], [1, 2, 3], [4]]
    assert machine.now == pytest.approx(11 + 13 + 11)


def test_a_batch_is_unread_until_it_ends():
    machine, unread = Machine(1), []
    stage = BatchStage(machine, [lambda batch, done: machine.after(10, done)], lambda _: unread.append(stage.unread))
    stage.add(1, 2)
    machine.after(5, lambda: stage.add(3))
    machine.after(6, lambda: unread.append(stage.unread))

    machine.run()

    assert unread == [3, 1, 0]


def test_a_single_item_waits_for_a_second_one():
    machine, begun = Machine(1), []
    stage = BatchStage(machine, [], lambda batch: begun.append((machine.now, batch)), gathers=2)
    for at in (0, 10, 11):
        machine.after(at, partial(stage.add, at))

    machine.run()

    assert begun == [(2, [0]), (11, [10, 11])]


def test_costs_with_small_and_large_batches_show_what_a_batch_shares():
    assert Batch.through([(1.0, 12.0), (0.5, 7.0), (0.1, 3.0)]) == Batch(pytest.approx(10), pytest.approx(2))
    assert Batch.through([(1.0, 2.0), (0.1, 3.0)]) == Batch(0, pytest.approx(2.5))
    assert Batch.through([(1.0, 9.0), (0.5, 4.0)]) == Batch(pytest.approx(9), 0)


# --- The product


def test_the_hash_bounds_the_rate():
    costs = msgspec.structs.replace(FREE, hash=Batch(0, 20))
    assert simulate(costs, Scenario(signups=1000, at_once=50)).rate == pytest.approx(100, rel=0.05)
    assert simulate(costs, Scenario(signups=1000, at_once=50, cores=1)).rate == pytest.approx(50, rel=0.05)
    four = Scenario(signups=1000, at_once=50, cores=4, auths=2)
    assert simulate(costs, four).rate == pytest.approx(200, rel=0.1)


def test_two_consumers_of_a_group_share_its_messages():
    costs = msgspec.structs.replace(FREE, participant=Batch(0, 20))
    assert simulate(costs, Scenario(signups=400, at_once=50, cores=8)).rate == pytest.approx(50, rel=0.05)
    two = Scenario(signups=400, at_once=50, cores=8, consumers=2)
    assert simulate(costs, two).rate == pytest.approx(100, rel=0.15)


def test_a_single_sign_up_takes_the_cpu_on_its_way():
    result = simulate(COSTS, Scenario(signups=1, at_once=1, cores=8))
    # Client, gateway, request and hash; save, query with its disk, and message; a participant, its query and its
    # message; auth's results with both answers, their query and the wake-up; the last event, the way back.
    there, back = 0.1 + 0.2 + 0.2 + 20, 0.7 + 0.2 + 0.1
    assert result.percentile(0.5) == pytest.approx(there + (2 + 4 + 1) + (3 + 4 + 1) + (4 + 4 + 1) + back)


def test_sign_ups_wait_for_a_participant_that_is_away_and_end_when_it_is_back():
    result = simulate(COSTS, Scenario(signups=600, rate=20, cores=2, away=("chat", 5, 25)))

    assert len([each for each in result.signups if len(each.lights) == 3]) == 600
    during = [each for each in result.signups if 6_000 < each.begun < 24_000]
    assert all(each.lights["chat"] > 25_000 > each.lights["customer"] for each in during)
    assert result.deepest["chat"] > len(during)
    assert result.repeated > 0
    # Chat computes a millisecond for each message that waited, and gets at least half of a core for that.
    drain = result.deepest["chat"] * COSTS.participant.item / 1000
    assert drain <= result.caught_up - 25 <= 2 * drain


@pytest.mark.parametrize(("signups", "repeated"), [(499, 499), (500, 4 * 50)])
def test_the_relay_sends_a_tenth_of_its_rate_while_a_participant_has_500_unread_messages(signups, repeated):
    # All sign-ups arrive within the first second, so they are due in the sixth. The relay runs four times until 9.5 s.
    result = simulate(FREE, Scenario(signups=signups, rate=4000, away=("chat", 0, 9.5)))
    assert result.repeated == repeated


def test_the_relay_sends_a_tenth_of_its_rate_while_auth_has_500_unread_answers():
    costs = msgspec.structs.replace(FREE, results=Batch(0, 5))
    result = simulate(costs, Scenario(signups=1500, rate=1000, cores=4))
    assert result.repeated == pytest.approx(50 * (result.seconds - FIRST_PAUSE / 1000), abs=50)


def test_the_model_repeats_the_constants_of_the_product():
    assert model.ENOUGH == hash_pool.ENOUGH
    assert model.PARTITIONS == settings.KAFKA_PARTITIONS
    assert answers.verdicts.gathers * 1000 == model.GATHERS
    assert (model.FIRST_PAUSE, model.MAX_PAUSE) == (live.RELAY_FIRST_PAUSE * 1000, live.RELAY_MAX_PAUSE * 1000)
    assert model.RELAY_RATE == live.RELAY_RATE
    assert model.SHARE_WHEN_BEHIND == relay_signups.SHARE_WHEN_BEHIND
