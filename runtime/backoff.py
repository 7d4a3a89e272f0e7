"""How long to wait before a further try."""

import random
from collections.abc import Iterator


def growing_pauses(*, first: float, most: float) -> Iterator[float]:
    """Seconds to wait before each further try, without end: any time up to a limit that doubles from `first` to `most`.

    Full jitter: those who failed together do not come back together.
    """
    limit = first
    while True:
        yield random.uniform(0, limit)  # noqa: S311 - jitter, not a secret
        limit = min(limit * 2, most)
