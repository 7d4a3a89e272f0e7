"""The consumer groups of this installation: who is in them, and how far behind they are. Nobody joins one to look."""

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
from eventbus.subscriptions import subscriptions_of
from eventbus.topics import dead_letter_topic

# Partitions by topic and number.
Places = Mapping[tuple[str, int], Partition]


# Kafka's words for a group that nobody has been in yet: Kafka 3 says the first, Kafka 4 does not list it.
_NOBODY_YET: Final = Membership("Dead", ())


@dataclass(frozen=True, slots=True)
class PartitionProgress:
    """How far a group is in one partition; `committed` is None where it never committed."""

    topic: str
    partition: Partition
    committed: int | None

    @property
    def lag(self) -> int:
        begin = self.partition.begin
        # Who never committed begins with what there is. One may also have gone on since the end was looked up.
        return max(0, self.partition.end - max(begin, begin if self.committed is None else self.committed))


@dataclass(frozen=True, slots=True)
class Group:
    """A group; its name comes without KAFKA_PREFIX.

    `membership` is None where Kafka can't tell it. `problem` says why Kafka doesn't answer about this group.
    """

    name: str
    membership: Membership | None
    progress: tuple[PartitionProgress, ...]
    problem: str = ""

    @property
    def lag(self) -> int:
        return sum(each.lag for each in self.progress)


def known_groups() -> Mapping[str, set[str]]:
    """The groups that this installation has by its settings, with the topics that each reads, whoever is in them."""
    groups: dict[str, set[str]] = defaultdict(set)
    for service in settings.EVENT_CONSUMERS:
        for subscription in subscriptions_of(service):
            groups[subscription.group].add(subscription.topic)
            groups[COLLECTOR].add(dead_letter_topic(subscription.topic, subscription.group))
    return groups


def can_list_groups() -> bool:
    """The embedded broker can't: of it only the lag of the groups that the settings name is known."""
    return not settings.KAFKA_EMBEDDED


def read_groups(topics: Sequence[InspectedTopic]) -> list[Group]:
    """The groups that begin with KAFKA_PREFIX and those that the settings name, in order, with their lag in `topics`.

    Raises KafkaException, which is transient while Kafka is away.
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
    """Where the group goes on in each of these. Asked by a client that has the group's name and never joins it, for the
    reason that eventbus.inspection.lag gives."""
    client = Consumer(client_config({"group.id": prefixed(name), "enable.auto.commit": False}))
    with contextlib.closing(client):
        return client.committed([TopicPartition(prefixed(topic), number) for topic, number in places], ANSWERS_WITHIN)
