"""How far behind a group is: the messages of a topic that it has not committed yet."""

from collections.abc import Mapping
from typing import Final

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import OffsetSpec

from eventbus.clients import client_config, prefixed
from eventbus.errors import TransientError

# Seconds for each of the four questions; who asks goes on without the answers.
ANSWERS_WITHIN: Final = 0.5
_EARLIEST: Final[OffsetSpec] = OffsetSpec.earliest()  # type: ignore[no-untyped-call]
_LATEST: Final[OffsetSpec] = OffsetSpec.latest()  # type: ignore[no-untyped-call]


class LagReader:
    """Asks Kafka about groups, without joining them. It holds one client; make one and keep it."""

    def __init__(self) -> None:
        self._admin = AdminClient(client_config({}))

    def lag(self, topic: str, group: str) -> int:
        """Messages of `topic` that `group` has not read; all that Kafka keeps of it for a group that never read.

        Raises TransientError when Kafka does not say: that it takes messages already does not mean that it does.
        """
        return sum(self.lag_by_partition(topic, group).values())

    def lag_by_partition(self, topic: str, group: str) -> Mapping[int, int]:
        """The same for each partition of the topic; nothing for a topic that is not there yet."""
        try:
            return self._ask(prefixed(topic), prefixed(group))
        except (KafkaException, TimeoutError) as error:
            raise TransientError(f"Kafka does not say how far {group} is: {error or 'no answer in time'}") from error

    def _ask(self, topic: str, group: str) -> Mapping[int, int]:
        numbers = self._admin.list_topics(topic, timeout=ANSWERS_WITHIN).topics[topic].partitions
        partitions = [TopicPartition(topic, number) for number in numbers]
        if not partitions:
            return {}
        begin, end = self._offsets(partitions, _EARLIEST), self._offsets(partitions, _LATEST)
        request = ConsumerGroupTopicPartitions(group, partitions)
        answer = self._admin.list_consumer_group_offsets([request], request_timeout=ANSWERS_WITHIN)
        committed = answer[group].result(ANSWERS_WITHIN).topic_partitions or []
        # What Kafka has deleted meanwhile is read by nobody any more; a group that never committed begins there too.
        return {each.partition: end[each.partition] - max(begin[each.partition], each.offset) for each in committed}

    def _offsets(self, partitions: list[TopicPartition], which: OffsetSpec) -> dict[int, int]:
        answer = self._admin.list_offsets(dict.fromkeys(partitions, which), request_timeout=ANSWERS_WITHIN)
        return {partition.partition: asked.result(ANSWERS_WITHIN).offset for partition, asked in answer.items()}
