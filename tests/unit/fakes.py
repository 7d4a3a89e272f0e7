"""Fakes of a Kafka client, a producer and the clock. They record their calls and behave as a test sets them up, so that
unit tests need neither a broker nor real time."""

import threading
from collections.abc import Callable, Sequence
from typing import Any

from confluent_kafka import KafkaError, TopicPartition

from eventbus.errors import DeliveryError, TooLargeError
from eventbus.messages import Outgoing
from runtime.processes.health import Heartbeat

# Far more calls than any of these tests makes, so that an endless loop fails instead of hanging.
CALLS_MAX = 2000


class Clock:
    """Stands still until a test, a poll or a wait moves it. Replaces the module `time`."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    perf_counter = monotonic


class Stop(threading.Event):
    """A stop request; waiting for it moves the clock instead."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.waits: list[float] = []
        self._clock = clock

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self.waits.append(timeout)
        assert len(self.waits) < CALLS_MAX
        self._clock.now += timeout
        return self.is_set()


class Beats(Heartbeat):
    def __init__(self) -> None:
        super().__init__()
        self.beats = 0

    def beat(self) -> None:
        super().beat()
        self.beats += 1


class FakeMessage:
    """A message, or the report of an error, as Kafka's client returns it."""

    def __init__(
        self,
        offset: int = 0,
        *,
        topic: str = "asked",
        partition: int = 0,
        value: bytes = b"good",
        error: KafkaError | None = None,
    ) -> None:
        self._fields = {"topic": topic, "partition": partition, "offset": offset, "value": value, "error": error}

    def __getattr__(self, name: str) -> Callable[[], Any]:
        fields = self._fields | {"key": b"key", "headers": None, "timestamp": (0, -1)}
        return lambda: fields[name]


class RecordingClient:
    """Polls and consumes `waiting`. A poll that finds nothing moves the clock by `step` or else by its timeout."""

    def __init__(self, clock: Clock) -> None:
        self.waiting: list[FakeMessage | None] = []
        self.assigned: list[TopicPartition] = []
        self.calls: list[tuple[Any, ...]] = []
        self.commits: list[list[tuple[str, int, int]]] = []
        self.commit_result: Callable[[list[TopicPartition]], list[TopicPartition]] = lambda offsets: offsets
        self.step: float | None = None
        self.when_idle: Callable[[], object] = lambda: None
        self._clock = clock

    def poll(self, timeout: float) -> FakeMessage | None:
        self._note("poll", timeout)
        if self.waiting and (message := self.waiting.pop(0)):
            return message
        self._clock.now += timeout if self.step is None else self.step
        self.when_idle()
        return None

    def consume(self, count: int, timeout: float) -> list[FakeMessage]:
        self._note("consume", count, timeout)
        taken, self.waiting = self.waiting[:count], self.waiting[count:]
        return [message for message in taken if message]

    def commit(self, *, offsets: Sequence[TopicPartition] = (), asynchronous: bool) -> list[TopicPartition]:
        assert asynchronous is False
        self.commits.append([(each.topic, each.partition, each.offset) for each in offsets])
        self._note("commit")
        return self.commit_result(list(offsets))

    def list_topics(self, *, timeout: float) -> None:
        """Kafka answers."""

    def assignment(self) -> list[TopicPartition]:
        return self.assigned

    def assign(self, partitions: list[TopicPartition]) -> None:
        self.assigned = partitions
        self._note("assign", *map(place, partitions))

    def subscribe(
        self, topics: Sequence[str], *, on_assign: Callable[..., None], on_revoke: Callable[..., None]
    ) -> None:
        self.on_assign, self.on_revoke = on_assign, on_revoke
        self._note("subscribe", *topics)

    def unsubscribe(self) -> None:
        self._note("unsubscribe")

    def pause(self, partitions: list[TopicPartition]) -> None:
        self._note("pause", *map(place, partitions))

    def resume(self, partitions: list[TopicPartition]) -> None:
        self._note("resume", *map(place, partitions))

    def seek(self, partition: TopicPartition) -> None:
        self._note("seek", *place(partition), partition.offset)

    def close(self) -> None:
        self._note("close")

    def called(self, name: str) -> list[tuple[Any, ...]]:
        """The arguments of each call of this name."""
        return [arguments for called, *arguments in map(list, self.calls) if called == name]

    def _note(self, *call: Any) -> None:
        self.calls.append(call)
        assert len(self.calls) < CALLS_MAX, "this would never end"


class KeepingProducer:
    """Records the messages to send. Those with these values are too large; those of `lost` are not acknowledged."""

    def __init__(self, *too_large: bytes, lost: Sequence[bytes] = ()) -> None:
        self.sent: list[Outgoing] = []
        self.timeouts: list[float] = []
        self.closed: list[float] = []
        self.too_large, self.lost = too_large, lost

    def send_all(self, messages: Sequence[Outgoing], *, timeout: float) -> None:
        self.timeouts.append(timeout)
        for kind, values in ((TooLargeError, self.too_large), (DeliveryError, self.lost)):
            if failed := [message for message in messages if message.value in values]:
                raise kind(failed, "it was told to fail")
        self.sent += messages

    def close(self, timeout: float) -> None:
        self.closed.append(timeout)


def place(partition: TopicPartition) -> tuple[str, int]:
    return partition.topic, partition.partition
