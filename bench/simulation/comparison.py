"""`make simulate-check`: measure the stages' costs and some results in one run, and compare them with the simulation.

The costs come from loads of their own, with few and with many sign-ups at once: the difference shows which part of a
cost a batch shares. The compared loads are others; nothing that the simulation gets is measured in them, except for the
share of the cores that other programs left.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from bench import hashing
from bench.generator import Generator
from bench.installation import Installation, installation, servers
from bench.running import machine, tell
from bench.simulation import recorded
from bench.simulation.costs import MEASURED
from bench.simulation.model import Scenario, arrivals
from bench.simulation.recorded import Comparison, Recorded
from bench.simulation.samples import Generate, Sample, Sampler, costs_of, disk_ms, medians
from bench.simulation.volumes import Volumes

# Sign-ups with a cheap hash until Kafka's virtual machine has compiled what is hot. They are few at once, because it is
# the number of requests that counts.
WARM_UP: Final = 6000
WARM_UP_AT_ONCE: Final = 10
# All loads run in turn, this many times, and the medians count: the speed of the cores changes within minutes.
ROUNDS: Final = 3
# The loads that yield the costs: sign-ups at once, and how many in all.
COSTS: Final = ((1, 100), (4, 200), (16, 400), (100, 700))
# The compared loads: both cores busy all the time, and about half of it.
COMPARED: Final = (Scenario(signups=1200, at_once=50), Scenario(signups=800, rate=25))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.simulation.comparison")
    parser.add_argument("--save", action="store_true", help="save these costs and results as the reference")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="signup-sync-simulation-", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o711)
        generator = Generator(Path(name))
        with servers() as shared, installation(shared, **hashing.cheap().settings) as ours:
            tell("warming up")
            generator.signups(ours.url, WARM_UP, at_once=WARM_UP_AT_ONCE)
            ours.restart(**hashing.REAL.settings)
            compared = measure(generator, ours, save=options.save)
    print(machine())
    for each in compared:
        print(table(each))
    sys.exit(exit_code(compared))


def exit_code(compared: Sequence[Comparison]) -> int:
    return 1 if any(each.missed for each in compared) else 0


def measure(generator: Generator, ours: Installation, *, save: bool) -> Sequence[Comparison]:
    generator.signups(ours.url, 200, at_once=20)
    loads: list[Generate] = [partial(generator.signups, n=signups, at_once=at_once) for at_once, signups in COSTS]
    loads += [generated(scenario, generator) for scenario in COMPARED]
    sampler, volumes = Sampler(ours), Volumes(ours)
    rounds, idles = [], []
    for number in range(ROUNDS):
        tell(f"round {number + 1} of {ROUNDS}")
        rounds.append([sampler.sample(load) for load in loads])
        idles.append(sampler.idle())
    for what, size in volumes.read(sum(sample.signups for each in rounds for sample in each)).items():
        tell(f"bytes per sign-up, {what}: {size:,.0f}")
    samples, idle = [Sample.middle(each) for each in zip(*rounds, strict=True)], medians(idles)
    for_costs, compared = samples[: len(COSTS)], samples[len(COSTS) :]
    costs = costs_of([sample.without(idle) for sample in for_costs], disk_ms(ours.servers.postgresql.directory))
    results = [
        Recorded(msgspec.structs.replace(scenario, speed=sample.speed(idle)), sample.figures)
        for scenario, sample in zip(COMPARED, compared, strict=True)
    ]
    if save:
        costs.save_to(MEASURED)
        recorded.write(results)
    return [result.compare(costs) for result in results]


def generated(scenario: Scenario, generator: Generator) -> Generate:
    if scenario.at_once:
        return partial(generator.signups, n=scenario.signups, at_once=scenario.at_once)
    return partial(generator.signups_due, due=arrivals(scenario))


def table(compared: Comparison) -> str:
    scenario = compared.scenario
    load = f"{scenario.at_once} at once" if scenario.at_once else f"{scenario.rate:g} per second, at random"
    lines = [f"\n| {load} | measured | simulated | ratio |", "| --- | --- | --- | --- |"]
    for name, measured, simulated, ratio in compared.ratios():
        lines.append(f"| {WORDS[name]} | {measured:.1f} | {simulated:.1f} | {ratio:.2f} |")
    if compared.missed:
        lines.append(f"\nMore than {recorded.WITHIN:.0%} apart: {', '.join(WORDS[name] for name in compared.missed)}")
    return "\n".join(lines)


WORDS: Final = {
    "rate": "sign-ups, 1/s",
    "first_p50": "until the first event, p50, ms",
    "first_p99": "until the first event, p99, ms",
    "last_p50": "until all lights are green, p50, ms",
    "last_p99": "until all lights are green, p99, ms",
}


if __name__ == "__main__":
    main()
