"""Texts that cost the most for their length, and what a process pays for them."""

import time
from collections.abc import Callable, Iterator

# Each is a beginning and a repeated piece. Python's normalisation sorts a run of marks in quadratic time; the other
# texts are the worst for patterns, searches, numbers and paths.
PIECES = {
    "marks": ("a", "\u0323\u0302"),
    "Tibetan marks": ("\u0f40", "\u0f73\u0f71"),
    "ligatures": ("", "\ufdfa"),
    "digits": ("", "9"),
    "quoted words": ("", "\"a '"),
    "quoted quotes": ('"', '\\"'),
    "labels": ("a@", "ü."),
}
# The maximum CPU time for the worst text, as a multiple of an ordinary request's.
RATIO = 10
# Seconds under which two costs can't be told apart.
FLOOR = 0.002


def worst_texts(size: int) -> Iterator[tuple[str, str]]:
    """Yield the name of each text, and the text, of at most so many bytes."""
    for name, (begin, piece) in PIECES.items():
        yield name, begin + piece * ((size - len(begin.encode())) // len(piece.encode()))


def cpu_of_process(pid: int) -> float:
    """Seconds of CPU time that a process has used, with its threads that have ended: Linux's clock of that process, to
    the nanosecond (its number is made as clock_getcpuclockid(3) does)."""
    return time.clock_gettime((~pid << 3) | 2)


def cheapest(act: Callable[[], object], *, of: int, clock: Callable[[], float]) -> float:
    """Return the shortest of so many measurements in seconds by this clock, because other work of the machine only adds
    to them.
    """
    costs = []
    for _ in range(of):
        begun_at = clock()
        act()
        costs.append(clock() - begun_at)
    return min(costs)


def too_dear(
    ordinary: Callable[[], object], worst: dict[str, Callable[[], object]], *, clock: Callable[[], float]
) -> list[str]:
    """The texts of `worst` that cost more than RATIO times as much as `ordinary`, with their ratios."""
    usual = max(cheapest(ordinary, of=5, clock=clock), FLOOR)
    costs = {name: _cheap_enough(act, usual * RATIO, clock) for name, act in worst.items()}
    return [f"{name}: {cost / usual:.0f} times" for name, cost in costs.items() if cost > usual * RATIO]


def _cheap_enough(act: Callable[[], object], limit: float, clock: Callable[[], float]) -> float:
    """Return the cost of a call. It is repeated up to twice only if it was high, because another process may be the
    cause.
    """
    cost = cheapest(act, of=1, clock=clock)
    return cost if cost <= limit else min(cost, cheapest(act, of=2, clock=clock))
