"""Traffic figures as the page draws them, and their roll-up: each full minute in Redis becomes a row in auth's
database, which is kept for KEPT_DAYS (docs/adr/0028)."""

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import redis

from authsvc.models import TrafficMinute
from authsvc.signups.traffic_counts import COUNTS_TTL, LAG_PREFIX, Counts, figures_client, key_of, milliseconds_of

KEPT_DAYS: Final = 8
MINUTE: Final = 60
# Seconds by which the figures of a minute may be late.
GRACE: Final = 5
PERCENTILES: Final = (50, 95, 99)


def merged(many: Iterable[Counts]) -> dict[str, int]:
    """Merge figures into those of a longer period: sum the counts, take the maximum of lag."""
    total: dict[str, int] = Counter()
    for counts in many:
        for field, value in counts.items():
            total[field] = max(total[field], value) if field.startswith(LAG_PREFIX) else total[field] + value
    return dict(total)


def point(at: int, counts: Counts) -> dict[str, Any]:
    """Return the chart data of the step that starts `at` (Unix seconds). Without figures it has only `t`.

    {"t", "begun", "verdicts": {service: [green, red]}, "lag": {group: messages}, "took": [p50, p95, p99] in ms}
    """
    shown: dict[str, Any] = {"t": at}
    verdicts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    times: dict[int, int] = {}
    for field, value in counts.items():
        match field.split(":"):
            case ["begun"]:
                shown["begun"] = value
            case ["verdict", service, status]:
                verdicts[service][status != "SUCCESS"] += value
            case ["took", bucket]:
                times[int(bucket)] = value
            case ["lag", group]:
                shown.setdefault("lag", {})[group] = value
    if verdicts:
        shown["verdicts"] = verdicts
    if times:
        shown["took"] = [percentile(times, percent) for percent in PERCENTILES]
    return shown


def percentile(times: Mapping[int, int], percent: int) -> float:
    """Return the percentile in ms from the number of durations per bucket."""
    rank = sum(times.values()) * percent / 100
    seen = 0
    for bucket in sorted(times):
        seen += times[bucket]
        if seen >= rank:
            break
    return round(milliseconds_of(bucket), 1)


# --- The last minutes, out of Redis -------------------------------------------------------------------------------


def read_seconds(client: redis.Redis, begin: int, end: int) -> list[tuple[int, Counts]]:
    """Return the figures of each second in [begin, end). Raise redis.RedisError."""
    seconds = range(begin, end)
    with client.pipeline(transaction=False) as pipeline:
        for second in seconds:
            pipeline.hgetall(key_of(second))
        answers = pipeline.execute()
    return [
        (second, {field: int(value) for field, value in answer.items()})
        for second, answer in zip(seconds, answers, strict=True)
    ]


# --- The last days, out of the database ---------------------------------------------------------------------------


class RollUp:
    """Roll up each completed minute. Any number of relays may do this: an existing minute is not changed."""

    def __init__(self) -> None:
        self._redis = figures_client()
        self._next = 0

    def run(self) -> int:
        """Return how many minutes were rolled up. Raise redis.RedisError or a database error."""
        end = _minute(int(time.time()) - GRACE)
        begin = max(self._next or _after_the_newest(), _minute(end - COUNTS_TTL) + MINUTE)
        rows = [
            TrafficMinute(minute=datetime.fromtimestamp(minute, UTC), counts=counts)
            for minute in range(begin, end, MINUTE)
            if (counts := merged(counts for _, counts in read_seconds(self._redis, minute, minute + MINUTE)))
        ]
        TrafficMinute.objects.bulk_create(rows, ignore_conflicts=True)
        if rows:
            oldest = datetime.now(UTC) - timedelta(days=KEPT_DAYS)
            TrafficMinute.objects.filter(minute__lt=oldest).delete()
        self._next = max(begin, end)
        return len(rows)


def _after_the_newest() -> int:
    newest = TrafficMinute.objects.order_by("-minute").values_list("minute", flat=True).first()
    return int(newest.timestamp()) + MINUTE if newest else 0


def _minute(second: int) -> int:
    return second - second % MINUTE


def read_days(*, begin: int, step: int) -> Sequence[dict[str, Any]]:
    """Return the points that have figures, one per `step` seconds from `begin` on, in order. Runs one query."""
    since = datetime.fromtimestamp(begin, UTC)
    rows = TrafficMinute.objects.filter(minute__gte=since).order_by("minute").values_list("minute", "counts")
    steps: dict[int, list[Counts]] = {}
    for minute, counts in rows:
        second = int(minute.timestamp())
        steps.setdefault(second - second % step, []).append(counts)
    return [point(at, merged(many)) for at, many in steps.items()]
