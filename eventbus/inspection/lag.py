"""How far behind a group is: the messages of a topic that it has not committed yet."""

import math
from collections.abc import Mapping
from typing import Final

from confluent_kafka import Consumer, KafkaException, TopicPartition

from eventbus.clients import client_config, prefixed
from eventbus.metrics import LAG
from runtime.errors import TransientError

# Seconds for each question; who asks goes on without the answers.
ANSWERS_WITHIN: Final = 0.5


class LagReader:
    """Asks Kafka about groups, with a client for each, which never joins it. Make one reader and keep it.

    Not by an AdminClient, which could do it with one client: its answers come a minute late after a restart of a busy
    Kafka, and it crashed the process when its first questions met a topic that was just being made.
    """

    def __init__(self) -> None:
        self._clients: dict[str, Consumer] = {}

    def lag(self, topic: str, group: str) -> int:
        """Messages of `topic` that `group` has not read; all that Kafka keeps of it for a group that never read.

        Raises TransientError when Kafka does not say: that it takes messages already does not mean that it does.
        """
        shown = LAG.labels(topic, group)
        shown.set(math.nan)  # until it is known: what was true before must not stand there as if it were now
        unread = sum(self.lag_by_partition(topic, group).values())
        shown.set(unread)
        return unread

    def lag_by_partition(self, topic: str, group: str) -> Mapping[int, int]:
        """The same for each partition of the topic; nothing for a topic that is not there yet."""
        name, client = prefixed(topic), self._client_of(group)
        try:
            numbers = client.list_topics(name, timeout=ANSWERS_WITHIN).topics[name].partitions
            committed = client.committed([TopicPartition(name, number) for number in numbers], timeout=ANSWERS_WITHIN)
            return {place.partition: _unread(client, place) for place in committed}
        except KafkaException as error:
            raise TransientError(f"Kafka does not say how far {group} is: {error}") from error

    def close(self) -> None:
        """Ends the clients."""
        while self._clients:
            self._clients.popitem()[1].close()

    def _client_of(self, group: str) -> Consumer:
        if group not in self._clients:
            own = {"group.id": prefixed(group), "enable.auto.commit": False}
            self._clients[group] = Consumer(client_config(own))
        return self._clients[group]


def _unread(client: Consumer, committed: TopicPartition) -> int:
    first, end = client.get_watermark_offsets(committed, timeout=ANSWERS_WITHIN)
    # What Kafka has deleted meanwhile is read by nobody any more; a group that never committed begins there too.
    return int(end - max(first, committed.offset))
