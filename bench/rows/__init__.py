"""The groups of rows. A group is measured together, and yields a row for each of its goals."""

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from bench.report import Row
from bench.rows import backfill, embedded, front, growth, held, pace, pairs, password, starts, user_import
from bench.running import Bench

Group = Callable[[Bench], Iterator[Row]]

# In this order: the groups that need the peers come first; then the peers are stopped.
WITH_PEERS: Final[Mapping[str, Group]] = {
    "start": starts.start,
    "memory": starts.memory,
    "throughput": pace.throughput,
    "alone": pace.alone,
}
OURS_ALONE: Final[Mapping[str, Group]] = {
    "hash": password.real_hash,
    "held": held.held,
    "front": front.front,
    "two": pairs.two,
    "growth": growth.growth,
    "backfill": backfill.backfill,
    "import": user_import.user_import,
    "embedded": embedded.embedded,
}
GROUPS: Final[Mapping[str, Group]] = {**WITH_PEERS, **OURS_ALONE}
