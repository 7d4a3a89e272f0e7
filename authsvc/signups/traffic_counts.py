"""Traffic counts per second, kept in Redis for an hour, for the traffic page (docs/adr/0028).

Sign-ups, changes and removals are counted alike. Each second is a hash at `traffic:<Unix time>` with the fields
`begun`, `verdict:<service>:<status>`, `took:<bucket>` (those that became all green, by duration) and `lag:<group>` (the
last consumer lag sampled in that second). They are for information only: a Redis outage or a crash loses some counts
and has no other effect.
"""

import logging
import math
import time
from collections import Counter
from collections.abc import Mapping
from typing import Final

import redis

from authsvc.lights import DecidedLights
from runtime.redis_clients import redis_client

logger = logging.getLogger(__name__)

Counts = Mapping[str, int]
NOTHING: Final[Counts] = {}

# TTL in seconds of a second's counts: long enough for a relay that was down to roll them up into minutes.
COUNTS_TTL: Final = 3600
# Redis timeout in seconds, and the seconds without another attempt after a failure.
ANSWERS_WITHIN: Final = 1.0
AWAY_PAUSE: Final = 10.0
# Durations are counted in buckets, each ending 25 % later than the one before, so a percentile is off by an eighth at
# most. The first bucket ends at 5 ms; the last holds everything above 43 minutes.
FIRST_BUCKET_MS: Final = 5.0
BUCKET_GROWTH: Final = 1.25
LAST_BUCKET: Final = 60
LAG_PREFIX: Final = "lag:"


def key_of(second: int) -> str:
    return f"traffic:{second}"


def present_key() -> str:
    """Return the key of the current second."""
    return key_of(int(time.time()))


def bucket_of(milliseconds: float) -> int:
    """Return the bucket of a duration. A negative one, caused by clock skew, is in the first bucket."""
    if milliseconds <= FIRST_BUCKET_MS:
        return 0
    return min(LAST_BUCKET, math.ceil(math.log(milliseconds / FIRST_BUCKET_MS, BUCKET_GROWTH)))


def milliseconds_of(bucket: int) -> float:
    """Return the (geometric) middle of the bucket, which represents all its durations."""
    return FIRST_BUCKET_MS * math.pow(BUCKET_GROWTH, bucket - 0.5)


def counts_of(decisions: DecidedLights, *, begun: int = 0) -> Counter[str]:
    """Return the counts of a batch: event transactions that began, lights that it decided, and durations of those
    that it turned all green."""
    counts: Counter[str] = Counter(begun=begun) if begun else Counter()
    for (service, status, _kind), ids in decisions.lights.items():
        counts[f"verdict:{service}:{status}"] += len(ids)
    for state, last in decisions.complete:
        if not state.failed:
            counts[f"took:{bucket_of((last - state.started_at).total_seconds() * 1000)}"] += 1
    return counts


class LagSampler:
    """Record the lag of each consumer group in Redis. If Redis is unavailable, log that and make no further attempt for
    AWAY_PAUSE seconds. Counts of sign-ups are written by authsvc.signups.projection instead."""

    def __init__(self) -> None:
        self._redis = figures_client()
        self._away_until = 0.0

    def sample(self, lags: Mapping[str, int]) -> None:
        """Record these lags for the current second."""
        if time.monotonic() < self._away_until:
            return
        key = present_key()
        try:
            with self._redis.pipeline(transaction=False) as pipeline:
                pipeline.hset(key, mapping={f"{LAG_PREFIX}{group}": lag for group, lag in lags.items()})
                pipeline.expire(key, COUNTS_TTL)
                pipeline.execute()
        except (redis.RedisError, OSError) as error:
            logger.warning("consumer lag is not recorded for %g s: %s", AWAY_PAUSE, error)
            self._away_until = time.monotonic() + AWAY_PAUSE


def figures_client() -> redis.Redis:
    """Return a Redis client for traffic counts. The caller closes it."""
    return redis_client(ANSWERS_WITHIN, decode_responses=True)
