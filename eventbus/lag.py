"""How far behind a group is: the messages of a topic that it has not committed yet."""

import math
from collections.abc import Mapping
from typing import Final

from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import OffsetSpec

from eventbus.clients import client_config, prefixed
from eventbus.metrics import LAG

ANSWERS_WITHIN: Final = 2.0
_EARLIEST: Final[OffsetSpec] = OffsetSpec.earliest()  # type: ignore[no-untyped-call]
_LATEST: Final[OffsetSpec] = OffsetSpec.latest()  # type: ignore[no-untyped-call]


class LagReader:
    """Asks Kafka about groups, without joining them. It holds one client; make one and keep it."""

    def __init__(self) -> None:
        self._admin = AdminClient(client_config({}))

    def lag(self, topic: str, group: str) -> int:
        """Messages of `topic` that `group` has not read; all that Kafka keeps of it for a group that never read.

        Raises KafkaException, which is transient while Kafka is away.
        """
        shown = LAG.labels(topic, group)
        shown.set(math.nan)  # until it is known: what was true before must not stand there as if it were now
        unread = sum(self.lag_by_partition(topic, group).values())
        shown.set(unread)
        return unread

    def lag_by_partition(self, topic: str, group: str) -> Mapping[int, int]:
        """The same for each partition of the topic; nothing for a topic that is not there yet."""
        name = prefixed(topic)
        numbers = self._admin.list_topics(name, timeout=ANSWERS_WITHIN).topics[name].partitions
        partitions = [TopicPartition(name, number) for number in numbers]
        if not partitions:
            return {}
        begin, end = self._offsets(partitions, _EARLIEST), self._offsets(partitions, _LATEST)
        request = ConsumerGroupTopicPartitions(prefixed(group), partitions)
        answer = self._admin.list_consumer_group_offsets([request], request_timeout=ANSWERS_WITHIN)
        committed = answer[prefixed(group)].result(ANSWERS_WITHIN).topic_partitions or []
        # What Kafka has deleted meanwhile is read by nobody any more; a group that never committed begins there too.
        return {each.partition: end[each.partition] - max(begin[each.partition], each.offset) for each in committed}

    def _offsets(self, partitions: list[TopicPartition], which: OffsetSpec) -> dict[int, int]:
        answer = self._admin.list_offsets(dict.fromkeys(partitions, which), request_timeout=ANSWERS_WITHIN)
        return {partition.partition: asked.result(ANSWERS_WITHIN).offset for partition, asked in answer.items()}
