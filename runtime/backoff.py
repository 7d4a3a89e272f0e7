"""Exponential backoff with jitter."""

import random
from collections.abc import Iterator
from itertools import count
from typing import Final

# After this many doublings, any first pause has reached any longest one.
DOUBLINGS_MAX: Final = 16


def doubled(first: float, *, times: int, most: float) -> float:
    """Return a pause of `first` seconds doubled `times` times, at most `most` seconds, without jitter."""
    return min(first * 2.0 ** min(times, DOUBLINGS_MAX), most)


def growing_pauses(*, first: float, most: float) -> Iterator[float]:
    """Yield the seconds to wait before each retry, without end: random, up to a limit that doubles from `first` to
    `most`. The full jitter keeps clients that failed together from retrying together.
    """
    for times in count():
        yield random.uniform(0, doubled(first, times=times, most=most))  # noqa: S311 - jitter, not a secret
