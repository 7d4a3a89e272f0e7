"""How long to wait before a further try."""

import random
from collections.abc import Iterator
from itertools import count
from typing import Final

# After so many doublings any first pause has reached any longest one.
DOUBLINGS_MAX: Final = 16


def doubled(first: float, *, times: int, most: float) -> float:
    """A pause of `first` seconds doubled so many times, `most` seconds at most; without jitter."""
    return min(first * 2.0 ** min(times, DOUBLINGS_MAX), most)


def growing_pauses(*, first: float, most: float) -> Iterator[float]:
    """Seconds to wait before each further try, without end: any time up to a limit that doubles from `first` to `most`.

    Full jitter: those who failed together do not come back together.
    """
    for times in count():
        yield random.uniform(0, doubled(first, times=times, most=most))  # noqa: S311 - jitter, not a secret
