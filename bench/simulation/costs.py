"""The measured CPU of each stage, in milliseconds of a core."""

from collections.abc import Iterable
from pathlib import Path
from statistics import linear_regression
from typing import Final

import msgspec

MEASURED: Final = Path(__file__).with_name("costs.json")


class Batch(msgspec.Struct, frozen=True):
    """The cost of a batch: a fixed part, and a part for each item."""

    fixed: float
    item: float

    def of(self, size: float) -> float:
        return self.fixed + self.item * size

    def of_one(self, *, is_first: bool) -> float:
        """The cost of an item that is handled alone; the first of a batch bears the fixed part."""
        return self.item + (self.fixed if is_first else 0.0)

    @classmethod
    def through(cls, points: Iterable[tuple[float, float]]) -> "Batch":
        """Fit a line through points, each the number of batches per item and the cost per item: the slope is the fixed
        part, and the rest is the item's. Neither is negative."""
        batches, costs = zip(*points, strict=True)
        slope, rest = linear_regression(batches, costs)
        if slope < 0:
            return cls(0.0, sum(costs) / len(costs))
        return cls(slope + min(0.0, rest), max(0.0, rest))


class Costs(msgspec.Struct, frozen=True):
    """The items of `client`, `gateway` and `loop` (auth's event loop) are passes of a request or an event, and their
    batches are the events that follow a batch of auth's writer or of its results. The fixed part of `hash` is the extra
    cost of a hash whose thread has slept. `save` is auth's writer."""

    client: Batch
    gateway: Batch
    loop: Batch
    hash: Batch
    save: Batch
    participant: Batch
    results: Batch
    postgresql: Batch
    kafka: Batch
    redis: Batch
    disk: float  # milliseconds that a commit waits for the disk, without CPU
    taken: str = ""  # when and how they were measured

    def save_to(self, path: Path) -> None:
        path.write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n")


def read_costs(path: Path = MEASURED) -> Costs:
    return msgspec.json.decode(path.read_bytes(), type=Costs)
