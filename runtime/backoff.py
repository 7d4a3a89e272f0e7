"""Exponential backoff with jitter."""

import random
from collections.abc import Iterator


def growing_pauses(*, first: float, most: float) -> Iterator[float]:
    """Yield the seconds to wait before each retry, without end: random, up to a limit that doubles from `first` to
    `most`. The full jitter keeps clients that failed together from retrying together.
    """
    limit = first
    while True:
        yield random.uniform(0, limit)  # noqa: S311 - jitter, not a secret
        limit = min(limit * 2, most)
