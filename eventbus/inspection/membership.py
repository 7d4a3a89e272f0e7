"""The members of Kafka's consumer groups.

This uses the deprecated AdminClient.list_groups(). In its successor, describe_consumer_groups(), librdkafka 2.16 fails
an assertion and aborts the process when the connection to a group's coordinator breaks (its issue 4605): a restart of
Kafka killed every web process that was asking.
"""

import struct
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any, Final

from confluent_kafka.admin import AdminClient

from eventbus.clients import client_config, unprefixed

# Protocol type of consumers, as opposed to Kafka Connect's workers, for example.
_CONSUMER: Final = "consumer"


@dataclass(frozen=True, slots=True)
class Member:
    """A member of a group. `reads` lists its partitions as (topic, number); topics are without KAFKA_PREFIX."""

    client: str
    host: str
    reads: tuple[tuple[str, int], ...]

    @property
    def by_topic(self) -> list[tuple[str, list[int]]]:
        """The member's partitions, grouped by topic."""
        topics = groupby(self.reads, key=itemgetter(0))
        return [(topic, [number for _, number in numbers]) for topic, numbers in topics]


@dataclass(frozen=True, slots=True)
class Membership:
    """A group's state in Kafka's terms (Stable, Empty, Dead, ...) and its members.

    `problem` says why Kafka could not describe the group."""

    state: str
    members: tuple[Member, ...]
    problem: str = ""


def read_memberships(group: str | None = None, *, timeout: float) -> dict[str, Membership]:
    """Return all groups of the cluster by name, or only `group`. Groups that have never had a member are missing.

    Raises KafkaException if Kafka has not answered within `timeout` seconds.
    """
    client = AdminClient(client_config({}))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        groups: Any = client.list_groups(*([group] if group else []), timeout=timeout)
    return {each.id: _membership(each) for each in groups}


def _membership(group: Any) -> Membership:
    if group.error is not None:
        return Membership("", (), group.error.str())
    is_read = group.protocol_type == _CONSUMER
    members = [
        Member(each.client_id, each.client_host.lstrip("/"), partitions_in(each.assignment) if is_read else ())
        for each in group.members
    ]
    return Membership(group.state, tuple(sorted(members, key=lambda member: member.reads)))


def partitions_in(assignment: bytes) -> tuple[tuple[str, int], ...]:
    """Return the (topic, number) pairs of a member's assignment, sorted; empty if it can't be parsed.

    The format is Kafka's ConsumerProtocolAssignment: a version, then an array of topics, each with an array of numbers.
    """
    try:
        return tuple(sorted(_partitions(assignment)))
    except (struct.error, UnicodeError):
        return ()


def _partitions(data: bytes) -> Iterator[tuple[str, int]]:
    _version, topics = struct.unpack_from(">hi", data)
    at = 6
    for _ in range(topics):
        (length,) = struct.unpack_from(">h", data, at)
        topic = unprefixed(data[at + 2 : at + 2 + length].decode())
        at += 2 + length
        (count,) = struct.unpack_from(">i", data, at)
        numbers = struct.unpack_from(f">{count}i", data, at + 4)
        at += 4 + 4 * count
        yield from ((topic, number) for number in numbers)
