"""What the traffic page counts, by the second, in Redis, for an hour (docs/adr/0028).

A second is a hash at `traffic:<seconds since 1970>`. Its fields: `begun` (sign-ups), `verdict:<service>:<status>`,
`took:<bucket>` (sign-ups that became all green, by how long that took) and `lag:<group>` (the most of that second).
These are figures to look at: a Redis that is away, or a process that dies, costs some of them and nothing else.
"""

import logging
import math
import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from functools import cache
from typing import Final
from uuid import UUID

import redis
from django.conf import settings
from redis.backoff import NoBackoff
from redis.retry import Retry

from authsvc.lights import SignUpState, Status

logger = logging.getLogger(__name__)

Counts = Mapping[str, int]

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


def bucket_of(milliseconds: float) -> int:
    """The bucket of a time; one below zero, of two clocks that differ, is in the first."""
    if milliseconds <= FIRST_BUCKET_MS:
        return 0
    return min(LAST_BUCKET, math.ceil(math.log(milliseconds / FIRST_BUCKET_MS, BUCKET_GROWTH)))


def milliseconds_of(bucket: int) -> float:
    """What stands for a bucket's times: its middle."""
    return FIRST_BUCKET_MS * math.pow(BUCKET_GROWTH, bucket - 0.5)


def counts_of_begun(states: Iterable[SignUpState]) -> Counter[str]:
    """What sign-ups count for that were saved now: themselves, and the verdicts that were given with it."""
    counts: Counter[str] = Counter()
    for state in states:
        counts["begun"] += 1
        counts.update(_verdict(state, service) for service in state.lights if service not in state.pending)
        if state.is_complete:
            counts.update(_took(state))
    return counts


def counts_of_decided(
    states: Mapping[UUID, SignUpState], reported: Collection[tuple[UUID, str]], *, since: datetime
) -> Counter[str]:
    """What a batch of reported verdicts counts for, of which these are the states after it.

    A light counts if it was decided since the batch began: a repeated answer finds it decided before.
    """
    counts: Counter[str] = Counter()
    now_complete: dict[UUID, SignUpState] = {}
    for signup_id, service in set(reported):
        state = states.get(signup_id)
        light = state.lights.get(service) if state else None
        if state and light and light.decided_at is not None and light.decided_at >= since:
            counts[_verdict(state, service)] += 1
            if state.is_complete:
                now_complete[signup_id] = state
    for state in now_complete.values():
        counts.update(_took(state))
    return counts


def _verdict(state: SignUpState, service: str) -> str:
    return f"verdict:{service}:{state.lights[service].status.value}"


def _took(state: SignUpState) -> list[str]:
    """How long it took until all was green; nothing of a sign-up that has a red light."""
    lights = state.lights.values()
    if any(light.status is not Status.SUCCESS for light in lights):
        return []
    decided = max(light.decided_at for light in lights if light.decided_at is not None)
    return [f"took:{bucket_of((decided - state.started_at).total_seconds() * 1000)}"]


class TrafficCounter:
    """Writes figures into Redis, one pipeline for each batch. Never raises: it counts no more for AWAY_PAUSE seconds
    where Redis is away. For synchronous roles; the event loop's is authsvc.projection's."""

    def __init__(self) -> None:
        self._redis = redis_client()
        self._away_until = 0.0

    def add(self, counts: Counts) -> None:
        """Counts these for the present second."""
        self._write(counts, {})

    def sample_lag(self, lags: Mapping[str, int]) -> None:
        """How far each group is behind in the present second."""
        self._write({}, {f"{LAG}{group}": lag for group, lag in lags.items()})

    def _write(self, counts: Counts, gauges: Counts) -> None:
        if not (counts or gauges) or time.monotonic() < self._away_until:
            return
        try:
            with self._redis.pipeline(transaction=False) as pipeline:
                fill(pipeline, counts, gauges)
                pipeline.execute()
        except (redis.RedisError, OSError) as error:
            logger.warning("traffic is not counted for %g s: %s", AWAY_PAUSE, error)
            self._away_until = time.monotonic() + AWAY_PAUSE


def fill(pipeline: "redis.client.Pipeline | redis.asyncio.client.Pipeline", counts: Counts, gauges: Counts) -> None:
    """Puts the commands into a pipeline that write these figures for the present second."""
    key = key_of(int(time.time()))
    for field, count in counts.items():
        pipeline.hincrby(key, field, count)
    for field, value in gauges.items():
        pipeline.hset(key, field, str(value))
    pipeline.expire(key, KEPT)


@cache
def traffic() -> TrafficCounter:
    """That of this process."""
    return TrafficCounter()


def redis_client() -> redis.Redis:
    """One that gives up soon. Use it, and close it."""
    return redis.Redis.from_url(
        settings.REDIS_URL,
        retry=Retry(NoBackoff(), 0),
        socket_timeout=ANSWERS_WITHIN,
        socket_connect_timeout=ANSWERS_WITHIN,
        decode_responses=True,
    )
