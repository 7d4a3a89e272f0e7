"""The consumer groups of this installation: who is in them, and how far behind they are. Nobody joins one to look."""

import contextlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from django.conf import settings

from eventbus.clients import client_config, prefixed, unprefixed
from eventbus.collector import GROUP as COLLECTOR
from eventbus.inspection import ANSWERS_WITHIN, Partition, Topic
from eventbus.subscriptions import subscriptions_of
from eventbus.topics import dead_letter_topic

# Partitions by topic and number.
Places = Mapping[tuple[str, int], Partition]


@dataclass(frozen=True, slots=True)
class Member:
    """A process in a group; `reads` are its partitions, as (topic, number)."""

    client: str
    host: str
    reads: tuple[tuple[str, int], ...]

    @property
    def by_topic(self) -> list[tuple[str, list[int]]]:
        """The same as the partitions of each topic."""
        topics = groupby(self.reads, key=itemgetter(0))
        return [(topic, [number for _, number in numbers]) for topic, numbers in topics]


# What a group's membership is: Group.state, Group.members and Group.problem.
Membership = tuple[str, tuple[Member, ...] | None, str]
_UNTOLD: Final[Membership] = ("", None, "")


@dataclass(frozen=True, slots=True)
class Progress:
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

    `state` is Kafka's own word: STABLE, EMPTY, DEAD (nobody was in it yet), ...; where Kafka can't tell it is "" and
    `members` None. `problem` says why Kafka doesn't answer about this one.
    """

    name: str
    state: str
    members: tuple[Member, ...] | None
    progress: tuple[Progress, ...]
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


def read_groups(topics: Sequence[Topic]) -> list[Group]:
    """The groups that begin with KAFKA_PREFIX and those that the settings name, in order, with their lag in `topics`.

    Raises KafkaException, which is transient while Kafka is away.
    """
    known = known_groups()
    memberships = _memberships(known) if can_list_groups() else {}
    places = {(topic.name, each.number): each for topic in topics for each in topic.partitions}
    return [
        _group(name, memberships.get(name, _UNTOLD), places, known.get(name, set()))
        for name in sorted({*known, *memberships})
    ]


def _memberships(known: Iterable[str]) -> dict[str, Membership]:
    # Held until all has been answered: what an AdminClient was asked is never answered once it is gone.
    admin = AdminClient(client_config({}))
    listed = admin.list_consumer_groups(request_timeout=ANSWERS_WITHIN).result(2 * ANSWERS_WITHIN)
    if listed.errors:
        raise KafkaException(listed.errors[0])
    there = {each.group_id for each in listed.valid if each.group_id.startswith(settings.KAFKA_PREFIX)}
    names = sorted(there | {prefixed(name) for name in known})
    asked = admin.describe_consumer_groups(names, request_timeout=ANSWERS_WITHIN)
    return {unprefixed(name): _membership(answer) for name, answer in asked.items()}


def _group(name: str, membership: Membership, places: Places, reads: set[str]) -> Group:
    state, members, problem = membership
    progress: list[Progress] = []
    try:
        for place in _committed(name, places):
            topic, offset = unprefixed(place.topic), place.offset
            if offset >= 0 or topic in reads:
                progress.append(Progress(topic, places[topic, place.partition], offset if offset >= 0 else None))
    except KafkaException as error:
        problem = error.args[0].str()
    return Group(name, state, members, tuple(progress), problem)


def _committed(name: str, places: Places) -> list[TopicPartition]:
    """Where the group goes on in each of these. Asked by a client that bears the group's name and never joins it: why
    by no AdminClient, says eventbus.lag."""
    client = Consumer(client_config({"group.id": prefixed(name), "enable.auto.commit": False}))
    with contextlib.closing(client):
        return client.committed([TopicPartition(prefixed(topic), number) for topic, number in places], ANSWERS_WITHIN)


def _membership(asked: Future[Any]) -> Membership:
    try:
        description = asked.result(2 * ANSWERS_WITHIN)
    except KafkaException as error:
        # What Kafka 4 says of a group that nobody has been in yet; Kafka 3 says DEAD.
        if error.args[0].code() == KafkaError.GROUP_ID_NOT_FOUND:
            return "DEAD", (), ""
        return "", None, error.args[0].str()
    members = [
        Member(
            each.client_id,
            each.host.lstrip("/"),
            tuple(sorted((unprefixed(at.topic), at.partition) for at in each.assignment.topic_partitions)),
        )
        for each in description.members
    ]
    return description.state.name, tuple(sorted(members, key=lambda member: member.reads)), ""
