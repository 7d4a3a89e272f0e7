"""Consumer lag: the messages of a topic that a group has not committed yet."""

import math
import threading
from collections.abc import Mapping
from typing import Final

from confluent_kafka import Consumer, KafkaException, TopicPartition

from eventbus.clients import client_config, close_consumer, is_stranded, prefixed
from eventbus.metrics import CONSUMERS_REPLACED, LAG
from runtime.errors import TransientError

# Timeout in seconds for each request. Callers continue without the answer.
ANSWERS_WITHIN: Final = 0.5


class LagReader:
    """Read the lag of consumer groups, with one client per group that never joins it. Create one reader and reuse it.

    An AdminClient would need only one client, but after a restart of a busy Kafka its answers come a minute late, and
    it crashed the process when its first requests met a topic that was just being created.

    After `stop` was set, a request takes no longer than usual.
    """

    def __init__(self, stop: threading.Event | None = None) -> None:
        self._stop = stop or threading.Event()
        self._clients: dict[str, Consumer] = {}
        # The labels of the gauges that this reader sets.
        self._shown: set[tuple[str, str]] = set()

    def lag(self, topic: str, group: str) -> int:
        """Return the number of messages of `topic` that `group` has not committed; all of them if it never committed.

        Raises TransientError if Kafka does not answer, which can happen while it already accepts messages.
        """
        self._shown.add((topic, group))
        try:
            unread = sum(self.lag_by_partition(topic, group).values())
        except TransientError:
            # Callers give up now. A stale value must not look current, nor a sum over only some of a group's topics.
            for labels in self._shown:
                LAG.labels(*labels).set(math.nan)
            raise
        LAG.labels(topic, group).set(unread)
        return unread

    def lag_by_partition(self, topic: str, group: str) -> Mapping[int, int]:
        """Return the lag by partition; empty for a topic that does not exist yet. Raises as lag() does."""
        name, client = prefixed(topic), self._client_of(group)
        try:
            numbers = client.list_topics(name, timeout=ANSWERS_WITHIN).topics[name].partitions
            committed = client.committed([TopicPartition(name, number) for number in numbers], timeout=ANSWERS_WITHIN)
            return {place.partition: _unread(client, place) for place in committed}
        except KafkaException as error:
            if is_stranded(client, self._stop):
                CONSUMERS_REPLACED.inc()
                close_consumer(self._clients.pop(group))
            raise TransientError(f"Kafka does not report the lag of {group}: {error}") from error

    def close(self) -> None:
        """Close the clients."""
        while self._clients:
            self._clients.popitem()[1].close()

    def _client_of(self, group: str) -> Consumer:
        if group not in self._clients:
            own = {"group.id": prefixed(group), "enable.auto.commit": False}
            self._clients[group] = Consumer(client_config(own))
        return self._clients[group]


def _unread(client: Consumer, committed: TopicPartition) -> int:
    first, end = client.get_watermark_offsets(committed, timeout=ANSWERS_WITHIN)
    # Deleted messages no longer count. A group that never committed starts at the first stored message, too.
    return int(end - max(first, committed.offset))
