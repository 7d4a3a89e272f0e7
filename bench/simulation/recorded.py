"""Measured results, the scenarios to which they belong, and their comparison with the simulation."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from bench.simulation.costs import Costs
from bench.simulation.model import Result, Scenario, simulate

RECORDED: Final = Path(__file__).with_name("results.json")
# The goal: the simulated figures differ from the measured ones by at most this share.
WITHIN: Final = 0.2


class Figures(msgspec.Struct, frozen=True):
    """The rate per second, and times in milliseconds: until the first event, and until the last light."""

    rate: float
    first_p50: float
    first_p99: float
    last_p50: float
    last_p99: float

    @classmethod
    def of(cls, result: Result) -> "Figures":
        first = [result.percentile(share, lambda each: each.first - each.begun) for share in (0.5, 0.99)]
        last = [result.percentile(share) for share in (0.5, 0.99)]
        return cls(result.rate, *first, *last)


class Recorded(msgspec.Struct, frozen=True):
    """One measured load."""

    scenario: Scenario
    measured: Figures

    def compare(self, costs: Costs) -> "Comparison":
        return Comparison(self.scenario, self.measured, Figures.of(simulate(costs, self.scenario)))


class Comparison(msgspec.Struct, frozen=True):
    scenario: Scenario
    measured: Figures
    simulated: Figures

    def ratios(self) -> Iterator[tuple[str, float, float, float]]:
        """Yield each figure's name, both values, and the simulated one's ratio to the measured one."""
        for name in Figures.__struct_fields__:
            measured, simulated = getattr(self.measured, name), getattr(self.simulated, name)
            yield name, measured, simulated, simulated / measured

    @property
    def missed(self) -> list[str]:
        """The figures that differ by more than the goal allows."""
        return [name for name, _, _, ratio in self.ratios() if abs(ratio - 1) > WITHIN]


def write(recorded: Sequence[Recorded], path: Path = RECORDED) -> None:
    path.write_bytes(msgspec.json.format(msgspec.json.encode(recorded), indent=2) + b"\n")


def read(path: Path = RECORDED) -> list[Recorded]:
    return msgspec.json.decode(path.read_bytes(), type=list[Recorded])
