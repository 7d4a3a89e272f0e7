"""What the traffic page counts, by the second, in Redis, for an hour (docs/adr/0028).

A second is a hash at `traffic:<seconds since 1970>`. Its fields: `begun` (sign-ups), `verdict:<service>:<status>`,
`took:<bucket>` (sign-ups that became all green, by how long that took) and `lag:<group>` (the most of that second).
These are figures to look at: a Redis that is away, or a process that dies, costs some of them and nothing else.
"""

import logging
import math
import time
from collections import Counter
from collections.abc import Mapping
from typing import Final

import redis

from authsvc.lights import Decisions
from runtime.redis_clients import redis_client

logger = logging.getLogger(__name__)

Counts = Mapping[str, int]
NOTHING: Final[Counts] = {}

# Seconds that a second's figures stay in Redis: enough for a relay that comes back to roll them up.
KEPT: Final = 3600
# Seconds that Redis may take, and without a try after it took longer: nobody waits for figures twice.
ANSWERS_WITHIN: Final = 1.0
AWAY_PAUSE: Final = 10.0
# Times are counted in buckets, each a quarter wider than the one before; a percentile is off by an eighth at most.
# The first ends at 5 ms, the last is for more than 55 minutes.
FIRST_BUCKET_MS: Final = 5.0
BUCKET_GROWTH: Final = 1.25
LAST_BUCKET: Final = 60
LAG: Final = "lag:"


def key_of(second: int) -> str:
    return f"traffic:{second}"


def present_key() -> str:
    """The key of the second that it is now."""
    return key_of(int(time.time()))


def bucket_of(milliseconds: float) -> int:
    """The bucket of a time; one below zero, of two clocks that differ, is in the first."""
    if milliseconds <= FIRST_BUCKET_MS:
        return 0
    return min(LAST_BUCKET, math.ceil(math.log(milliseconds / FIRST_BUCKET_MS, BUCKET_GROWTH)))


def milliseconds_of(bucket: int) -> float:
    """What stands for a bucket's times: its middle."""
    return FIRST_BUCKET_MS * math.pow(BUCKET_GROWTH, bucket - 0.5)


def counts_of(decisions: Decisions, *, begun: int = 0) -> Counter[str]:
    """What a batch counts for: the sign-ups that began, the lights that it decided, and how long it took those that
    became all green by it."""
    counts: Counter[str] = Counter(begun=begun) if begun else Counter()
    for (service, status), signup_ids in decisions.lights.items():
        counts[f"verdict:{service}:{status}"] += len(signup_ids)
    for state, last in decisions.complete:
        if not state.failed:
            counts[f"took:{bucket_of((last - state.started_at).total_seconds() * 1000)}"] += 1
    return counts


class LagSampler:
    """Writes into Redis how far each group is behind. Never raises: it tries no more for AWAY_PAUSE seconds where Redis
    is away. What sign-ups count for is authsvc.signups.projection's."""

    def __init__(self) -> None:
        self._redis = figures_client()
        self._away_until = 0.0

    def sample(self, lags: Mapping[str, int]) -> None:
        """Notes these for the present second."""
        if time.monotonic() < self._away_until:
            return
        key = present_key()
        try:
            with self._redis.pipeline(transaction=False) as pipeline:
                pipeline.hset(key, mapping={f"{LAG}{group}": lag for group, lag in lags.items()})
                pipeline.expire(key, KEPT)
                pipeline.execute()
        except (redis.RedisError, OSError) as error:
            logger.warning("the groups' lag is not noted for %g s: %s", AWAY_PAUSE, error)
            self._away_until = time.monotonic() + AWAY_PAUSE


def figures_client() -> redis.Redis:
    """One that reads and writes figures. Use it, and close it."""
    return redis_client(ANSWERS_WITHIN, decode_responses=True)
