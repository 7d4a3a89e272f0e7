"""The measured CPU of each stage, in milliseconds of a core."""

from pathlib import Path
from typing import Final

import msgspec

MEASURED: Final = Path(__file__).with_name("costs.json")


class Batch(msgspec.Struct, frozen=True):
    """The cost of a batch: a fixed part, and a part for each item."""

    fixed: float
    item: float

    def of(self, size: int) -> float:
        return self.fixed + self.item * size

    @classmethod
    def between(cls, alone: float, together: float, size: float) -> "Batch":
        """Solve for the two parts: the cost per item of batches of one, and of batches of `size` on average.

        Neither part is negative: if items cost more together, everything counts as the items'.
        """
        fixed = max(0.0, min(alone, (alone - together) / (1 - 1 / size))) if size > 1 else 0.0
        return cls(fixed, max(0.0, together - fixed / size))


class Costs(msgspec.Struct, frozen=True):
    """`request` and `events` are auth's for a sign-up outside its batches: reading and answering it, and its stream."""

    client: float
    gateway: float
    request: float
    hash: float
    save: Batch
    event: float
    participant: Batch
    results: Batch
    postgresql: Batch
    kafka: Batch
    redis: Batch
    taken: str = ""  # when and how they were measured

    def save_to(self, path: Path) -> None:
        path.write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n")


def read_costs(path: Path = MEASURED) -> Costs:
    return msgspec.json.decode(path.read_bytes(), type=Costs)
