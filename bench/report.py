"""The rows of the results, one for each goal, and their output as a table and as JSON."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

SPRING = "Spring peer"

Of = Literal["ratio", "ours"]


@dataclass(frozen=True, slots=True)
class Goal:
    """A bound for the ratio or for our own figure."""

    of: Of
    sense: Literal[">=", "<="]
    bound: float

    def is_met(self, *, ours: float | None, ratio: float | None) -> bool | None:
        """Whether the goal is met, or None if its figure was not measured."""
        figure = ratio if self.of == "ratio" else ours
        if figure is None:
            return None
        return figure >= self.bound if self.sense == ">=" else figure <= self.bound

    def __str__(self) -> str:
        return f"{self.of} {self.sense} {self.bound:g}"


def ratio_at_least(bound: float) -> Goal:
    return Goal("ratio", ">=", bound)


def ratio_at_most(bound: float) -> Goal:
    return Goal("ratio", "<=", bound)


def at_least(bound: float) -> Goal:
    return Goal("ours", ">=", bound)


def at_most(bound: float) -> Goal:
    return Goal("ours", "<=", bound)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of a table. `other` is the figure to compare with, and `against` its name; None means not measured.

    `felt` marks a metric that a user or an operator can feel (ADR 0051); all others are engineering detail.
    """

    name: str
    unit: str
    ours: float | None
    other: float | None = None
    against: str = ""
    goal: Goal | None = None
    felt: bool = False

    @property
    def ratio(self) -> float | None:
        return None if self.ours is None or not self.other else self.ours / self.other

    @property
    def met(self) -> bool | None:
        return self.goal.is_met(ours=self.ours, ratio=self.ratio) if self.goal else None

    def document(self) -> dict[str, object]:
        return {
            "name": self.name,
            "felt": self.felt,
            "ours": _rounded(self.ours),
            "other": _rounded(self.other),
            "against": self.against or None,
            "ratio": _rounded(self.ratio),
            "goal": str(self.goal) if self.goal else None,
            "met": self.met,
        }


def middle(values: Iterable[float]) -> float | None:
    """Return the median, or None if there are no values."""
    known = list(values)
    return median(known) if known else None


def rows_against(
    peers: Mapping[str, float | None],
    *,
    name: str,
    unit: str,
    ours: float | None,
    goal: Goal | None = None,
    felt: bool = False,
) -> Iterator[Row]:
    """Yield a row for each peer, by their names; without peers, one whose comparison was not measured.

    The goals are set against the Spring peer. The other peers are shown for information.
    """
    for against, other in (peers or {SPRING: None}).items():
        its_goal = goal if against.startswith(SPRING) else None
        yield Row(name=name, unit=unit, ours=ours, other=other, against=against, goal=its_goal, felt=felt)


def tables(rows: Sequence[Row]) -> str:
    """Format the rows as Markdown for docs/performance.md, those that can be felt first."""
    felt = [row for row in rows if row.felt]
    detail = [row for row in rows if not row.felt]
    titled = {"What a user or an operator feels": felt, "Engineering detail": detail}
    return "\n\n".join(f"**{title}**\n\n{_table(some)}" for title, some in titled.items() if some)


def _table(rows: Sequence[Row]) -> str:
    lines = [("what", "unit", "ours", "other", "", "ratio", "goal", "met")]
    for row in rows:
        # A row without a goal is informational; a goal without a figure was not measured.
        met = {True: "yes", False: "**no**", None: "" if row.goal is None else "not measured"}[row.met]
        figures = (_shown(row.ours), _shown(row.other), row.against, _shown(row.ratio))
        lines.append((row.name, row.unit, *figures, str(row.goal or ""), met))
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    lines.insert(1, tuple("-" * width for width in widths))  # type: ignore[arg-type]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )


def as_json(rows: Iterable[Row]) -> str:
    """Return the rows as JSON, in the same order as in the tables."""
    return json.dumps({"rows": [row.document() for row in sorted(rows, key=lambda row: not row.felt)]})


def _rounded(value: float | None) -> float | None:
    """Round to four significant digits; more would be noise."""
    if not value:
        return value
    return round(value, max(0, 3 - math.floor(math.log10(abs(value)))))


def _shown(value: float | None) -> str:
    rounded = _rounded(value)
    return "" if rounded is None else f"{rounded:,.0f}" if abs(rounded) >= 1000 else f"{rounded:g}"
