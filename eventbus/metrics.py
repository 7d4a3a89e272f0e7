"""Prometheus metrics of the event bus. Every name is defined here and listed in docs/metrics.md (docs/adr/0019)."""

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

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
    "eventbus_producers_replaced_total", "Producers that hit a fatal error and were replaced."
)


class ReadingMetrics:
    """The metrics of one subscription. They are created before there is anything to count, so that the first dead
    letter shows as an increase from 0, and looked up once rather than for each batch."""

    def __init__(self, topic: str, group: str) -> None:
        self.batch_seconds = BATCH_SECONDS.labels(topic, group)
        self.messages = MESSAGES.labels(topic, group)
        self.retries = RETRIES.labels(topic, group)
        self.dead_letters = DEAD_LETTERS.labels(topic, group)
