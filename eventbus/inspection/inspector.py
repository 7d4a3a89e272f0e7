"""Inspect Kafka read-only: topics, the bounds of their partitions, and messages by offset, key or time.

Nothing here joins a group, commits, creates a topic or writes. Every read is limited in messages, bytes and seconds,
and reports whether it is complete.
"""

import heapq
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, Self

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition, murmur2
from confluent_kafka.admin._metadata import PartitionMetadata
from django.conf import settings

from eventbus.clients import prefixed, reader_config, unprefixed
from eventbus.errors import is_transient_in_kafka
from eventbus.incoming import as_incoming
from eventbus.messages import Incoming

# Timeout in seconds for one request to Kafka.
ANSWERS_WITHIN: Final = 2.0
# Limits of one read: seconds, messages examined, and bytes of the messages that it keeps.
SECONDS_MOST: Final = 3.0
LOOKED_AT_MOST: Final = 200_000
BYTES_MOST: Final = 4_000_000
# Default limit for the number of messages kept.
KEPT_MOST: Final = 100
# Messages fetched at a time, and seconds to wait for the first of them.
CHUNK: Final = 500
POLL: Final = 0.1
# Seconds by which publishers' clocks may differ: timestamps in a partition are not strictly ascending.
CLOCKS_DIFFER: Final = 10.0


class NoSuchTopicError(LookupError):
    """Kafka has no topic with this name, or the topic has no such partition."""


@dataclass(frozen=True, slots=True)
class Partition:
    """A partition's low and high watermarks: the offsets of the first stored message and of the next one to come.

    Both are 0 if Kafka can't give them now; `problem` says why, for example because no broker leads the partition.
    """

    number: int
    begin: int
    end: int
    problem: str = ""

    @property
    def count(self) -> int:
        """Number of stored messages; an upper bound if the topic is compacted or transactional."""
        return self.end - self.begin


@dataclass(frozen=True, slots=True)
class InspectedTopic:
    """A topic of this installation; `name` is without KAFKA_PREFIX."""

    name: str
    partitions: tuple[Partition, ...]

    @property
    def count(self) -> int:
        return sum(partition.count for partition in self.partitions)


@dataclass(frozen=True, slots=True)
class Reading:
    """The messages found, in order of time. If `is_whole` is false, a limit was reached and more may follow."""

    messages: tuple[Incoming, ...]
    looked_at: int
    is_whole: bool


class Inspector:
    """Context manager with a client for inspecting Kafka. eventbus.inspection.lag says why not with an AdminClient.

    Every method raises KafkaException, which is transient while Kafka is unavailable, and NoSuchTopicError.
    """

    def __init__(self) -> None:
        own: dict[str, object] = {
            # The client requires a group ID even though it never joins the group.
            "group.id": prefixed("inspection"),
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
            # Bounds for prefetching, which the limits above do not cover: in kB, and in bytes.
            "queued.max.messages.kbytes": 8192,
            "fetch.max.bytes": 8_388_608,
        }
        self._consumer = Consumer(reader_config(own))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._consumer.close()

    def topics(self) -> list[InspectedTopic]:
        """Return all topics with KAFKA_PREFIX, sorted by name, without Kafka's internal ones."""
        return self._topics(lambda name: name.startswith(settings.KAFKA_PREFIX) and not name.startswith("__"))

    def topic(self, name: str) -> InspectedTopic:
        """Return the topic with this name. Raises NoSuchTopicError."""
        full = prefixed(name)
        if found := self._topics(lambda each: each == full and not full.startswith("__")):
            return found[0]
        raise NoSuchTopicError(name)

    def _topics(self, is_asked_for: Callable[[str], bool]) -> list[InspectedTopic]:
        # List all topics rather than one by name: Kafka may create a topic when asked for its metadata.
        known = self._consumer.list_topics(timeout=ANSWERS_WITHIN).topics
        return [
            InspectedTopic(
                unprefixed(name), tuple(self._partition(name, known[name].partitions[number]) for number in numbers)
            )
            for name in sorted(filter(is_asked_for, known))
            if (numbers := sorted(known[name].partitions))
        ]

    def _partition(self, topic: str, about: PartitionMetadata) -> Partition:
        if about.leader < 0:
            return Partition(about.id, 0, 0, problem="no broker leads it")
        try:
            begin, end = self._consumer.get_watermark_offsets(TopicPartition(topic, about.id), ANSWERS_WITHIN)
        except KafkaException as error:
            return Partition(about.id, 0, 0, problem=error.args[0].str())
        return Partition(about.id, begin, end)

    def newest(self, topic: str, *, partition: int | None = None, limit: int = KEPT_MOST) -> Reading:
        """Return the last messages of a topic or of one partition."""
        partitions = _chosen(self.topic(topic), partition)
        starts = {each.number: max(each.begin, each.end - limit) for each in partitions}
        found = self._read(topic, partitions, starts, limit=limit)
        return replace(found, messages=found.messages[-limit:])

    def from_offset(self, topic: str, *, partition: int, offset: int, limit: int = KEPT_MOST) -> Reading:
        """Return the messages of a partition from this offset on, or from the nearest stored one."""
        partitions = _chosen(self.topic(topic), partition)
        starts = {each.number: min(max(each.begin, offset), each.end) for each in partitions}
        return self._first(self._read(topic, partitions, starts, limit=limit), limit)

    def from_time(
        self, topic: str, *, since: datetime, partition: int | None = None, limit: int = KEPT_MOST
    ) -> Reading:
        """Return the messages published at `since` or later."""
        partitions = _chosen(self.topic(topic), partition)
        starts = self._starts(topic, partitions, since)
        return self._first(self._read(topic, partitions, starts, since=since, limit=limit), limit)

    def messages_about(
        self,
        topic: str,
        *,
        key: str | bytes,
        since: datetime | None = None,
        until: datetime | None = None,
        partition: int | None = None,
        limit: int = KEPT_MOST,
    ) -> Reading:
        """Return the messages with this key, published between `since` and `until` by the publishers' clocks.

        Reads the partition to which this product's producers, and Java's and Node's, assign the key, or `partition` if
        another partitioner was used.
        """
        wanted = key.encode() if isinstance(key, str) else key
        there = self.topic(topic)
        number = murmur2(wanted, len(there.partitions)) if partition is None else partition
        partitions = _chosen(there, number)
        starts = self._starts(topic, partitions, since)
        return self._read(
            topic, partitions, starts, since=since, until=until, limit=limit, is_wanted=lambda each: each.key == wanted
        )

    def messages_where(
        self,
        topic: str,
        is_wanted: Callable[[Incoming], bool],
        *,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> Reading:
        """Return the messages of all partitions that `is_wanted` accepts, published between `since` and `until`."""
        partitions = self.topic(topic).partitions
        starts = self._starts(topic, partitions, since)
        return self._read(topic, partitions, starts, since=since, until=until, limit=KEPT_MOST, is_wanted=is_wanted)

    def _starts(self, topic: str, partitions: Sequence[Partition], since: datetime | None) -> dict[int, int]:
        """Return, for each partition, the offset of the first message published at `since` or later."""
        # The embedded broker has no time index, and stores so little that it can be read from the beginning.
        if since is None or settings.KAFKA_EMBEDDED:
            return {each.number: each.begin for each in partitions}
        # Negative timestamps have a special meaning for the client.
        name, milliseconds = prefixed(topic), max(0, math.floor(since.timestamp() * 1000))
        places = [TopicPartition(name, each.number, milliseconds) for each in partitions]
        found = {each.partition: each.offset for each in self._consumer.offsets_for_times(places, ANSWERS_WITHIN)}
        # Negative if the partition's last message is older.
        return {each.number: found[each.number] if found[each.number] >= 0 else each.end for each in partitions}

    @staticmethod
    def _first(found: Reading, limit: int) -> Reading:
        """Return the first `limit` messages overall: each partition may have yielded as many."""
        return replace(found, messages=found.messages[:limit], is_whole=found.is_whole and len(found.messages) <= limit)

    def _read(
        self,
        topic: str,
        partitions: Sequence[Partition],
        starts: Mapping[int, int],
        *,
        limit: int,
        since: datetime | None = None,
        until: datetime | None = None,
        is_wanted: Callable[[Incoming], bool] = lambda _: True,
    ) -> Reading:
        ends = {each.number: each.end for each in partitions if starts[each.number] < each.end}
        scan = _Scan(ends, limit=limit, is_wanted=is_wanted, since=since, until=until)
        name = prefixed(topic)
        places = [TopicPartition(name, number, starts[number]) for number in ends]
        self._consumer.assign(places)
        try:
            if places:
                # The client remembers a pause across assignments.
                self._consumer.resume(places)
            while scan.goes_on:
                first = self._consumer.poll(POLL)
                if first is None:
                    continue
                if ended := scan.take([first, *self._consumer.consume(CHUNK - 1, 0)]):
                    self._consumer.pause([place for place in places if place.partition in ended])
        finally:
            self._consumer.unassign()
        found = scan.reading()
        return replace(found, is_whole=found.is_whole and not any(each.problem for each in partitions))


class _Scan:
    """The state of one read: the messages found so far, and the partitions that are not finished."""

    def __init__(
        self,
        ends: Mapping[int, int],
        *,
        limit: int,
        is_wanted: Callable[[Incoming], bool],
        since: datetime | None,
        until: datetime | None,
    ) -> None:
        self.open = dict(ends)
        self._limit = limit
        self._is_wanted = is_wanted
        # Kafka's timestamps are whole milliseconds.
        self._since = math.floor(since.timestamp() * 1000) if since else -math.inf
        self._until = until.timestamp() * 1000 if until else math.inf
        self._kept: dict[int, list[Incoming]] = {number: [] for number in ends}
        self._is_cut = False
        self._looked_at = 0
        self._bytes = 0
        self._deadline = time.monotonic() + SECONDS_MOST

    @property
    def goes_on(self) -> bool:
        is_allowed = self._looked_at < LOOKED_AT_MOST and self._bytes < BYTES_MOST
        return bool(self.open) and is_allowed and time.monotonic() < self._deadline

    def take(self, messages: Iterable[Message]) -> set[int]:
        """Keep the wanted messages; return the partitions that these messages have finished."""
        before = set(self.open)
        for message in messages:
            number = message.partition() or 0
            if (error := message.error()) is not None:
                self._note(error, number)
            elif number in self.open and self.goes_on:
                self._look_at(as_incoming(message))
        return before - self.open.keys()

    def reading(self) -> Reading:
        messages = heapq.merge(*self._kept.values(), key=lambda each: each.timestamp_ms or 0)
        return Reading(tuple(messages), self._looked_at, not self.open and not self._is_cut)

    def _look_at(self, message: Incoming) -> None:
        kept, at = self._kept[message.partition], message.timestamp_ms or 0
        self._looked_at += 1
        if self._since <= at <= self._until and self._is_wanted(message):
            kept.append(message)
            self._bytes += len(message.key or b"") + len(message.value or b"")
        is_over = message.offset + 1 >= self.open[message.partition] or at > self._until + CLOCKS_DIFFER * 1000
        if is_over or len(kept) >= self._limit:
            self._is_cut |= not is_over
            del self.open[message.partition]

    def _note(self, error: KafkaError, number: int) -> None:
        if error.code() == KafkaError._PARTITION_EOF:
            # EOF comes before the expected end if the last offsets are transaction markers rather than messages.
            self.open.pop(number, None)
        elif not is_transient_in_kafka(error):
            raise KafkaException(error)


def _chosen(topic: InspectedTopic, number: int | None) -> list[Partition]:
    chosen = [each for each in topic.partitions if number in (None, each.number)]
    if not chosen:
        raise NoSuchTopicError(topic.name, number)
    return chosen
