"""Prometheus metrics of the event bus. Every name is defined here and listed in docs/metrics.md (docs/adr/0019)."""

from collections import Counter as Counts
from collections.abc import Iterable
from typing import Final

from prometheus_client import Counter, Gauge, Histogram

from eventbus.messages import Incoming, Rejected

_READING: Final = ("topic", "group")

BATCH_SECONDS: Final = Histogram(
    "eventbus_batch_seconds",
    "Time from the start of a batch until Kafka acknowledged its answers, for the attempt that succeeded.",
    _READING,
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
MESSAGES: Final = Counter("eventbus_messages_total", "Messages handled, including those dead-lettered.", _READING)
RETRIES: Final = Counter("eventbus_retries_total", "Failed attempts at a batch that are retried.", _READING)
DEAD_LETTERS: Final = Counter("eventbus_dead_letters_total", "Messages dead-lettered.", _READING)
DEAD_LETTERS_WAITING: Final = Gauge(
    "eventbus_dead_letters_waiting", "Dead letters that have been neither replayed nor discarded."
)
LAG: Final = Gauge(
    "eventbus_lag_messages", "Consumer lag: messages of the topic that the group has not committed.", _READING
)
UNDELIVERED: Final = Counter("eventbus_undelivered_total", "Messages that Kafka did not acknowledge.", ["topic"])
PRODUCERS_REPLACED: Final = Counter(
    "eventbus_producers_replaced_total", "Producers replaced after a fatal error or the loss of Kafka."
)
CONSUMERS_REPLACED: Final = Counter(
    "eventbus_consumers_replaced_total", "Consumers, and clients that read the lag, replaced after the loss of Kafka."
)


class ReadingMetrics:
    """The metrics of one subscription, by topic. A batch counts for each topic of which it has messages."""

    def __init__(self, topics: Iterable[str], group: str) -> None:
        self._group = group
        for topic in topics:
            # Before there is anything to count, so that the first dead letter shows as an increase from 0.
            for metric in (BATCH_SECONDS, MESSAGES, RETRIES, DEAD_LETTERS):
                metric.labels(topic, group)

    def retried(self, batch: Iterable[Incoming]) -> None:
        for topic in {message.topic for message in batch}:
            RETRIES.labels(topic, self._group).inc()

    def handled(self, batch: Iterable[Incoming], rejected: Iterable[Rejected], *, seconds: float) -> None:
        for topic, number in Counts(message.topic for message in batch).items():
            MESSAGES.labels(topic, self._group).inc(number)
            BATCH_SECONDS.labels(topic, self._group).observe(seconds)
        for message, _ in rejected:
            DEAD_LETTERS.labels(message.topic, self._group).inc()
