"""The consumer groups of this installation: their members and their lag, read without joining them."""

import contextlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from confluent_kafka import Consumer, KafkaException, TopicPartition
from django.conf import settings

from eventbus.clients import client_config, prefixed, unprefixed
from eventbus.deadletters.collector import GROUP as COLLECTOR
from eventbus.inspection.inspector import ANSWERS_WITHIN, InspectedTopic, Partition
from eventbus.inspection.membership import Membership, read_memberships
from eventbus.subscriptions import every_subscription

# Partitions by topic and number.
Places = Mapping[tuple[str, int], Partition]


# A group that has never had a member. Kafka 3 reports the state Dead for it; Kafka 4 does not list it.
_NOBODY_YET: Final = Membership("Dead", ())


@dataclass(frozen=True, slots=True)
class PartitionProgress:
    """A group's position in one partition; `committed` is None if it never committed."""

    topic: str
    partition: Partition
    committed: int | None

    @property
    def lag(self) -> int:
        begin = self.partition.begin
        # A group that never committed starts at the beginning. It may also have committed since the end was read.
        return max(0, self.partition.end - max(begin, begin if self.committed is None else self.committed))


@dataclass(frozen=True, slots=True)
class Group:
    """A consumer group; `name` is without KAFKA_PREFIX.

    `membership` is None if the broker can't list members. `problem` says why Kafka does not answer about this group.
    """

    name: str
    membership: Membership | None
    progress: tuple[PartitionProgress, ...]
    problem: str = ""

    @property
    def lag(self) -> int:
        return sum(each.lag for each in self.progress)


def known_groups() -> Mapping[str, set[str]]:
    """Return the groups that the settings define, with the topics that each reads, whether or not they have members."""
    groups: dict[str, set[str]] = defaultdict(set)
    for subscription in every_subscription():
        groups[subscription.group].update(subscription.topics)
        groups[COLLECTOR].update(subscription.dead_letter_topics)
    return groups


def can_list_groups() -> bool:
    """Whether the broker can list groups. For the embedded one, only the lag of configured groups is known."""
    return not settings.KAFKA_EMBEDDED


def read_groups(topics: Sequence[InspectedTopic]) -> list[Group]:
    """Return the groups with KAFKA_PREFIX and those in the settings, sorted by name, with their lag in `topics`.

    Raises KafkaException, which is transient while Kafka is unavailable.
    """
    known = known_groups()
    there = _memberships() if can_list_groups() else {}
    places = {(topic.name, each.number): each for topic in topics for each in topic.partitions}
    return [
        _group(name, there.get(name, _NOBODY_YET) if can_list_groups() else None, places, known.get(name, set()))
        for name in sorted({*known, *there})
    ]


def _memberships() -> dict[str, Membership]:
    listed = read_memberships(timeout=ANSWERS_WITHIN)
    return {unprefixed(name): each for name, each in listed.items() if name.startswith(settings.KAFKA_PREFIX)}


def _group(name: str, membership: Membership | None, places: Places, reads: set[str]) -> Group:
    problem = membership.problem if membership else ""
    progress: list[PartitionProgress] = []
    try:
        for place in _committed(name, places):
            topic, offset = unprefixed(place.topic), place.offset
            if offset >= 0 or topic in reads:
                progress.append(
                    PartitionProgress(topic, places[topic, place.partition], offset if offset >= 0 else None)
                )
    except KafkaException as error:
        problem = error.args[0].str()
    return Group(name, membership, tuple(progress), problem)


def _committed(name: str, places: Places) -> list[TopicPartition]:
    """Return the group's committed offset in each of these partitions.

    Uses a consumer with the group's ID that never joins it; eventbus.inspection.lag explains why."""
    client = Consumer(client_config({"group.id": prefixed(name), "enable.auto.commit": False}))
    with contextlib.closing(client):
        return client.committed([TopicPartition(prefixed(topic), number) for topic, number in places], ANSWERS_WITHIN)
