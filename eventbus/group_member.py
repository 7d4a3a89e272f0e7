"""Membership of a consumer group, which survives a lost rebalance."""

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from confluent_kafka import Consumer, TopicPartition

from eventbus.clients import is_stranded, prefixed
from eventbus.errors import StrandedError
from eventbus.metrics import CONSUMERS_REPLACED
from runtime.processes.health import Heartbeat

logger = logging.getLogger(__name__)

# Seconds without any assignment, not even an empty one, after which a member rejoins its group: twice as long as Kafka
# and the client wait for a rebalance. Observed once: a member that was frozen together with Kafka during a rebalance
# waited forever.
REJOINS_AFTER: Final = 60.0
# Seconds between two checks whether a member without an assignment can still reach Kafka.
CHECKED_EVERY: Final = 3.0


class Reader(Protocol):
    """A member of a group with a client of its own."""

    def run(self, stop: threading.Event) -> None:
        """Read until `stop` is set. Raises StrandedError."""


def run_reader(new_reader: Callable[[], Reader], stop: threading.Event) -> None:
    """Run a reader until `stop` is set, and replace it whenever its client is stranded. Raises its other errors."""
    while not stop.is_set():
        try:
            new_reader().run(stop)
        except StrandedError as error:
            logger.warning("replacing the consumer: %s", error)
            CONSUMERS_REPLACED.inc()


def group_config(group: str) -> dict[str, Any]:
    """Return the librdkafka settings of every group member. Offsets are committed by hand, after the work."""
    return {
        "group.id": prefixed(group),
        "auto.offset.reset": "earliest",
        "session.timeout.ms": 6000,
        "enable.auto.commit": False,
        # Bounds the delay for added partitions and for a topic that a broker did not know yet; the default is 5 min.
        "topic.metadata.refresh.interval.ms": 10_000,
    }


class GroupMember:
    """Keeps a client in its consumer group: subscribes it, and lets it rejoin when no assignment arrives.

    The callbacks run inside a poll, on its thread, or while the client is closed. `on_assign` is called when partitions
    have been assigned, `on_revoke` for revoked partitions and for partitions lost because this member was presumed
    dead.
    """

    def __init__(
        self,
        consumer: Consumer,
        topics: Sequence[str],
        *,
        heartbeat: Heartbeat,
        on_assign: Callable[[list[TopicPartition]], None] = lambda _: None,
        on_revoke: Callable[[list[TopicPartition]], None] = lambda _: None,
    ) -> None:
        self._consumer = consumer
        self._topics = [prefixed(topic) for topic in topics]
        self._heartbeat = heartbeat
        self._when_assigned = on_assign
        self._when_revoked = on_revoke
        self._rejoins_at = math.inf
        self._checks_at = math.inf

    @property
    def awaits_assignment(self) -> bool:
        return self._rejoins_at < math.inf

    def join(self) -> None:
        """Subscribe. Partitions are assigned during a later poll."""
        self._await_assignment()
        self._consumer.subscribe(self._topics, on_assign=self._on_assign, on_revoke=self._on_revoke)

    def rejoin_if_forgotten(self, stop: threading.Event) -> None:
        """Leave the group and join it again if no assignment has arrived for REJOINS_AFTER.

        Raises StrandedError if the client can't get one, unless `stop` is set. A client that loses Kafka loses its
        assignment too."""
        if time.monotonic() > self._checks_at:
            if is_stranded(self._consumer, stop):
                raise StrandedError
            self._checks_at = time.monotonic() + CHECKED_EVERY
        if time.monotonic() > self._rejoins_at:
            logger.warning("no partition assignment for %.0f s: rejoining the group", REJOINS_AFTER)
            self._consumer.unsubscribe()
            self.join()

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        consumer.assign(partitions)
        self._rejoins_at = self._checks_at = math.inf
        self._when_assigned(partitions)
        self._heartbeat.ready()

    def _on_revoke(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        self._await_assignment()
        self._when_revoked(partitions)

    def _await_assignment(self) -> None:
        self._rejoins_at = time.monotonic() + REJOINS_AFTER
        self._checks_at = time.monotonic() + CHECKED_EVERY
