"""Noise in the topics: every tenth message is delivered again, and one in a hundred is poison."""

import heapq
import json
import threading
import time
from collections import Counter
from collections.abc import Sequence
from random import Random
from uuid import UUID

from confluent_kafka import OFFSET_BEGINNING, Consumer, Message, Producer, TopicPartition

from tests.contract.kafka_messages import is_meant
from tests.stack import Stack

REQUESTS = "user.newUser.req"
ANSWERS = "user.newUser.res"
# Topics whose messages are repeated, but that get no poison.
LATER = ("user.changeUser.req", "user.changeUser.res", "user.removeUser.req", "user.removeUser.res")
# Percentage of good messages that are repeated, and the seconds until then.
COPIES = 10
COPIED_AFTER = (0.0, 8.0)
# Good messages per poison message.
PER_POISON = 100
# The prefix of the key of every poison message.
POISON = b"poison-"

Headers = list[tuple[str, bytes | None]]


class Noise:
    """Reads both topics in a separate thread, and writes to them."""

    def __init__(self, stack: Stack, *, seed: int) -> None:
        self.counts: Counter[str] = Counter()
        self.poison: dict[str, set[bytes]] = {REQUESTS: set(), ANSWERS: set()}
        self._prefix = stack.env["KAFKA_PREFIX"]
        self._random = Random(f"noise {seed}")
        self._stop = threading.Event()
        # A heap of (time, number, message). The number is unique, so messages are never compared.
        self._due: list[tuple[float, int, Message]] = []
        server = {"bootstrap.servers": stack.env["KAFKA_BOOTSTRAP_SERVERS"], "log_level": 0, "error_cb": lambda _: None}
        self._producer = Producer({**server, "partitioner": "murmur2_random", "message.timeout.ms": 60_000})
        self._consumer = Consumer({**server, "group.id": f"{self._prefix}noise", "enable.auto.commit": False})
        self._thread = threading.Thread(target=self._run, name="noise", daemon=True)

    def start(self) -> None:
        topics = self._consumer.list_topics(timeout=10).topics
        self._consumer.assign(
            [
                TopicPartition(self._prefix + topic, partition, OFFSET_BEGINNING)
                for topic in (*self.poison, *LATER)
                for partition in topics[self._prefix + topic].partitions
            ]
        )
        self._thread.start()

    def finish(self) -> None:
        """Sends the remaining messages once. Raises RuntimeError if Kafka does not acknowledge one."""
        if self._stop.is_set():
            return
        self._stop.set()
        self._thread.join()
        while self._due:
            self._copy(heapq.heappop(self._due)[-1])
        left = self._producer.flush(30)
        self._consumer.close()
        if left:
            raise RuntimeError(f"{left} copies or poisonous messages were not delivered to Kafka")

    def _run(self) -> None:
        while not self._stop.is_set():
            for message in self._consumer.consume(200, 0.1):
                if not message.error() and not (message.key() or b"").startswith(POISON):
                    self._take(message)
            self._producer.poll(0)
            while self._due and self._due[0][0] <= time.monotonic():
                self._copy(heapq.heappop(self._due)[-1])

    def _take(self, message: Message) -> None:
        topic = (message.topic() or "").removeprefix(self._prefix)
        self.counts[topic] += 1
        if self._random.randrange(100) < COPIES:
            at = time.monotonic() + self._random.uniform(*COPIED_AFTER)
            heapq.heappush(self._due, (at, sum(self.counts.values()), message))
        if topic in self.poison and self.counts[topic] % PER_POISON == 1:
            self._poison(topic)

    def _copy(self, message: Message) -> None:
        """The same message again. Every fifth has a header that is not UTF-8, which is no reason to refuse it."""
        headers: Headers = list(message.headers() or [])
        if self._random.randrange(5) == 0:
            headers.append(("x-chaos", b"\xff\xfe\x00"))
        self._producer.produce(message.topic() or "", message.value(), message.key(), headers=headers)
        self.counts[f"{(message.topic() or '').removeprefix(self._prefix)} again"] += 1

    def _poison(self, topic: str) -> None:
        key = POISON + str(len(self.poison[topic])).encode()
        self.poison[topic].add(key)
        value = self._random.choice(_POISON[topic])
        is_meant(topic, value)
        self._producer.produce(self._prefix + topic, value, key, headers=self._random.choice(_HEADERS))


def _json(**fields: object) -> bytes:
    return json.dumps(fields).encode()


_NOBODY = str(UUID(int=1, version=4))
_USER = {"email": "a@example.org", "userName": "A", "role": "ROLE_USER", "occurredAt": "2026-01-31T00:00:00Z"}
_ANYWHERE: Sequence[bytes | None] = (
    None,
    b"",
    b"\x00\xff garbage \xfe",
    b'{"signupId": "',
    b"[]",
    b"null",
    b"42",
    b"{}",
)
_POISON: dict[str, Sequence[bytes | None]] = {
    REQUESTS: (
        *_ANYWHERE,
        _json(signupId=_NOBODY, ownerSignupId=_NOBODY, userId="a\x00b", attempt=1, **_USER),
        _json(signupId=7, ownerSignupId=_NOBODY, userId=["mina"], attempt=1, **_USER),
        _json(signupId=_NOBODY, ownerSignupId=_NOBODY, userId="x" * 10_000, attempt=1, **_USER),
    ),
    ANSWERS: (
        *_ANYWHERE,
        _json(signupId=_NOBODY, userId="mina", service="chat", status="SUCCESS", occurredAt="2026-01-31T00:00:00Z"),
        _json(signupId=_NOBODY, userId="mina", service="nobody", status="FAIL", occurredAt="2026-01-31T00:00:00Z"),
        _json(signupId=_NOBODY, userId="mina", service="chat", status="MAYBE", occurredAt="2026-01-31T00:00:00Z"),
        _json(signupId=_NOBODY, userId="a\x00b", service="a\x00b", status="FAIL", reason="\x00"),
    ),
}
_HEADERS: Sequence[Headers] = (
    [],
    [("content-type", b"\xff\xfe")],
    [("traceparent", b"\x80not a trace"), ("none", None)],
)
