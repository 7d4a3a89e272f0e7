"""`make simulate`: simulate sign-ups with the measured costs, and print what a person and an operator would see."""

import argparse
import math

from bench.simulation.costs import Costs, read_costs
from bench.simulation.model import Scenario, simulate


def main() -> None:
    options = read_options()
    costs = read_costs()
    scenario = scenario_of(options, costs)
    result = simulate(costs, scenario)
    print(f"costs: {costs.taken}")
    print(
        f"{scenario.signups:,} sign-ups at {options.rate:,.0f}/s on {scenario.cores} cores: "
        f"{scenario.auths} instances of auth, {scenario.consumers} processes of each consumer"
    )
    print(f"done after {result.seconds:,.1f} s: {result.rate:,.1f}/s, {result.used / result.seconds:,.1f} cores busy")
    for name, share in (("p50", 0.5), ("p99", 0.99), ("max", 1.0)):
        print(f"until the last light, {name}: {result.percentile(share) / 1000:,.3f} s")
    if scenario.away:
        name, begin, end = scenario.away
        print(
            f"{name} was away from {begin:g} s to {end:g} s: {result.deepest[name]:,} messages waited, "
            f"{result.repeated:,} events were sent again, and its queue was empty "
            f"{result.caught_up - end:,.1f} s after its return"
        )


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.simulation")
    parser.add_argument("--rate", type=float, default=50, help="sign-ups per second; default: %(default)s")
    parser.add_argument("--cores", type=int, default=2, help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=60, help="duration of the arrivals; default: %(default)s")
    parser.add_argument("--auths", type=int, help="instances of auth; default: one for every two cores")
    parser.add_argument("--consumers", type=int, help="processes of each consumer group; default: as many as needed")
    parser.add_argument("--fail", metavar="SERVICE:SECONDS", help="a participant that is down from second 10 on")
    return parser.parse_args()


def scenario_of(options: argparse.Namespace, costs: Costs) -> Scenario:
    away = None
    if options.fail:
        name, _, seconds = options.fail.partition(":")
        away = (name, 10.0, 10.0 + float(seconds or 60))
    return Scenario(
        signups=round(options.rate * options.seconds),
        rate=options.rate,
        cores=options.cores,
        auths=options.auths or max(1, round(options.cores / 2)),
        consumers=options.consumers or max(1, math.ceil(options.rate * 2 * costs.results.item / 500)),
        away=away,
    )


main()
