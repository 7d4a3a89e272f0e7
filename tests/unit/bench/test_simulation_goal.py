"""The goal of the simulation: it reproduces what `make simulate-check SAVE=1` measured on two cores, within 20 %."""

import msgspec
import pytest

from bench.simulation import recorded
from bench.simulation.comparison import exit_code
from bench.simulation.costs import read_costs
from bench.simulation.model import Scenario
from bench.simulation.recorded import Comparison, Figures, Recorded

MEASURED = Figures(rate=80, first_p50=480, first_p99=950, last_p50=500, last_p99=1000)


def load_of(result: Recorded) -> str:
    return f"{result.scenario.at_once or result.scenario.rate:g}"


@pytest.mark.parametrize("result", recorded.read(), ids=load_of)
def test_the_simulation_reproduces_a_measured_load_within_20_percent(result):
    compared = result.compare(read_costs())
    assert compared.missed == [], list(compared.ratios())


def test_a_saturating_load_and_a_partial_one_are_recorded():
    scenarios = [result.scenario for result in recorded.read()]
    assert {bool(scenario.at_once) for scenario in scenarios} == {True, False}
    assert {scenario.cores for scenario in scenarios} == {2}


@pytest.mark.parametrize("name", Figures.__struct_fields__)
@pytest.mark.parametrize(("ratio", "is_met"), [(0.79, False), (0.81, True), (1.19, True), (1.21, False)])
def test_every_figure_decides_the_exit_code(name, ratio, is_met):
    simulated = msgspec.structs.replace(MEASURED, **{name: getattr(MEASURED, name) * ratio})
    good, other = (Comparison(Scenario(signups=1), MEASURED, figures) for figures in (MEASURED, simulated))
    assert exit_code([good, other]) == (0 if is_met else 1)
