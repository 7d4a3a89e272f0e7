"""What the plumbing tells Prometheus. Every name of it stands here, and in docs/metrics.md (docs/adr/0019)."""

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

_READING: Final = ("topic", "group")

BATCH_SECONDS: Final = Histogram(
    "eventbus_batch_seconds",
    "From a batch's start to Kafka's acknowledgement of its answers, of the try that succeeded.",
    _READING,
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
MESSAGES: Final = Counter("eventbus_messages_total", "Messages handled, also those put aside.", _READING)
RETRIES: Final = Counter("eventbus_retries_total", "Tries of a batch that failed and are made again.", _READING)
DEAD_LETTERS: Final = Counter("eventbus_dead_letters_total", "Messages put aside.", _READING)
DEAD_LETTERS_WAITING: Final = Gauge(
    "eventbus_dead_letters_waiting", "Dead letters in the table that nobody has replayed or discarded."
)
LAG: Final = Gauge("eventbus_lag_messages", "Messages of the topic that the group has not committed.", _READING)
UNDELIVERED: Final = Counter("eventbus_undelivered_total", "Messages that Kafka did not acknowledge.", ["topic"])
PRODUCERS_REPLACED: Final = Counter(
    "eventbus_producers_replaced_total", "Producers that could do nothing any more and were replaced."
)


class ReadingMetrics:
    """Those of one group's reading of one topic. Made before there is anything to count, so that the first dead letter
    is seen as an increase, from 0; and looked up once, not for each batch."""

    def __init__(self, topic: str, group: str) -> None:
        self.batch_seconds = BATCH_SECONDS.labels(topic, group)
        self.messages = MESSAGES.labels(topic, group)
        self.retries = RETRIES.labels(topic, group)
        self.dead_letters = DEAD_LETTERS.labels(topic, group)
