"""100,000 events with an indexer that is killed and an OpenSearch that is down for a minute: nothing is lost.

OPENSEARCH_AWAY shortens the minute (seconds).
"""

import os
import time
from collections.abc import Callable
from functools import cache
from uuid import uuid4

import msgspec
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from django.conf import LazySettings

from eventbus.messages import Header, Incoming, Outgoing, cloud_event_headers, dead_letter
from eventbus.topics import DEAD_LETTER_SUFFIX, ensure_topics
from eventsearch.indexing import subscription
from runtime.errors import PermanentError
from tests.contract.kafka_messages import problem_with
from tests.servers import OpenSearchServer
from tests.servers.process import http_status
from tests.stack import RoleProcess
from tests.waiting import eventually, must_hold

pytestmark = pytest.mark.needs("kafka", "redis", "opensearch")

EVENTS = 100_000
AWAY = float(os.environ.get("OPENSEARCH_AWAY", "60"))
# Seconds that a part of the test may take on a busy machine.
MOST = 240.0


@pytest.fixture
def indexer(search_settings: LazySettings, indexer_of: Callable[[str], RoleProcess]) -> RoleProcess:
    # A prefix that ends with a letter hides the topics from the validation of all messages of a run, which would take
    # minutes for these. `publish` validates one of each kind instead.
    search_settings.KAFKA_PREFIX += "run"
    return indexer_of(search_settings.OPENSEARCH_URL)


def test_every_event_is_found_once_after_a_kill_and_a_minute_without_opensearch(
    indexer: RoleProcess, opensearch: OpenSearchServer, search_settings: LazySettings
) -> None:
    topics = subscription().topics
    ensure_topics(topics)
    publish(search_settings.KAFKA_PREFIX, topics, EVENTS)
    expected = published(search_settings.KAFKA_PREFIX, topics)
    assert sum(expected.values()) == EVENTS
    index = f"{search_settings.OPENSEARCH_INDEX}-*"

    def found() -> int:
        return opensearch.ask("GET", f"{index}/_count")["count"]

    indexer.launch()
    eventually(lambda: found() > EVENTS // 10, MOST)
    indexer.kill()
    must_hold(found() < EVENTS // 2, "the indexer was killed too late to be in the middle of its work")
    indexer.launch()
    eventually(lambda: found() > EVENTS // 2, MOST)
    opensearch.kill()
    until = time.monotonic() + AWAY

    def minute_has_passed() -> bool:
        must_hold(http_status(indexer.port, "/health/live") == 200, "the indexer waits for OpenSearch")
        return time.monotonic() > until

    eventually(minute_has_passed, AWAY + MOST)
    must_hold("is retried in" in indexer.log(), "OpenSearch was away in the middle of the work")
    opensearch.start()

    def counts() -> dict[str, int]:
        opensearch.ask("POST", f"{index}/_refresh")
        query = {"size": 0, "track_total_hits": True, "aggs": {"topics": {"terms": {"field": "topic", "size": 100}}}}
        answer = opensearch.ask("POST", f"{index}/_search", query)
        return {each["key"]: each["doc_count"] for each in answer["aggregations"]["topics"]["buckets"]}

    eventually(lambda: sum(counts().values()) >= EVENTS, MOST)
    assert counts() == expected
    assert indexer.stop() == 0
    assert published(search_settings.KAFKA_PREFIX, subscription().dead_letter_topics).keys() == set()
    assert committed(search_settings.KAFKA_PREFIX, topics) == EVENTS


def publish(prefix: str, topics: tuple[str, ...], count: int) -> None:
    """Publish so many events: nine in ten to the topics of sign-ups and changes, the others to all topics in turn."""
    producer = Producer({"bootstrap.servers": os.environ["KAFKA_BOOTSTRAP_SERVERS"], "linger.ms": 20})
    for number in range(count):
        topic = topics[number % 4] if number % 10 else topics[number // 10 % len(topics)]
        event = event_for(topic, number)
        if number < 10 * len(topics):
            assert problem_with(topic, event.value, dict(event.headers)) is None
        producer.produce(prefix + topic, event.value, key=event.key, headers=list(event.headers))
        producer.poll(0)
    assert producer.flush(MOST) == 0


def event_for(topic: str, number: int) -> Outgoing:
    """An event for a topic as docs/asyncapi.yaml describes it."""
    if not topic.endswith(DEAD_LETTER_SUFFIX):
        return Outgoing(topic, f"user-{number}", value_for(topic, number), headers_of(topic))
    asked, group = topic.removesuffix(DEAD_LETTER_SUFFIX).rsplit(".", 1)
    message = Incoming(asked, 0, number, b"user", value_for(asked, number), headers_of(asked), 1_795_748_400_000)
    return dead_letter(message, PermanentError("no reader"), group=group)


@cache
def headers_of(topic: str) -> tuple[Header, ...]:
    return cloud_event_headers(type=topic, source="/chat" if topic.endswith(".res") else "/auth")


def value_for(topic: str, number: int) -> bytes:
    ids = {"signupId" if topic.startswith("user.newUser") else "changeId": uuid4(), "userId": f"user-{number}"}
    event = {**ids, "occurredAt": "2026-11-27T03:00:00Z"}
    if topic.endswith(".res"):
        refusal = {"status": "FAIL", "reason": "duplicate: userId"}
        return msgspec.json.encode({**event, "service": "chat", **(refusal if number % 7 == 0 else SUCCESS)})
    event |= {"ownerSignupId": uuid4(), "version": 1 + number % 3, "attempt": 1}
    person = {"email": f"user-{number}@example.org", "userName": f"User {number}", "role": "ROLE_USER", "active": True}
    return msgspec.json.encode(event if "removeUser" in topic else {**event, **person})


SUCCESS = {"status": "SUCCESS"}


def published(prefix: str, topics: tuple[str, ...]) -> dict[str, int]:
    """The number of messages of each topic that has any, by Kafka's watermarks."""
    client = consumer(prefix)
    try:
        counts = {
            topic: sum(
                high - low
                for low, high in (client.get_watermark_offsets(place, 30) for place in places(client, prefix, topic))
            )
            for topic in topics
        }
    finally:
        client.close()
    return {topic: count for topic, count in counts.items() if count}


def committed(prefix: str, topics: tuple[str, ...]) -> int:
    """The sum of the offsets that the group has committed."""
    client = consumer(prefix)
    try:
        wanted = [place for topic in topics for place in places(client, prefix, topic)]
        return sum(place.offset for place in client.committed(wanted, 30) if place.offset > 0)
    finally:
        client.close()


def consumer(prefix: str) -> Consumer:
    servers = os.environ["KAFKA_BOOTSTRAP_SERVERS"]
    return Consumer({"bootstrap.servers": servers, "group.id": f"{prefix}search", "enable.auto.commit": False})


def places(client: Consumer, prefix: str, topic: str) -> list[TopicPartition]:
    numbers = client.list_topics(prefix + topic, timeout=30).topics[prefix + topic].partitions
    return [TopicPartition(prefix + topic, number) for number in numbers]
