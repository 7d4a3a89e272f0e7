"""Kafka as an operator sees it, on the embedded broker and on Apache Kafka, and that inspection changes nothing."""

import secrets
from datetime import UTC, datetime, timedelta

import pytest
from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from django.conf import settings

from eventbus.clients import prefixed
from eventbus.inspection.inspector import Inspector, NoSuchTopicError, Partition, Reading
from eventbus.messages import Outgoing
from eventbus.producer import EventProducer
from runtime.errors import is_transient
from tests.broker import PARTITIONS, new_topic, put
from tests.waiting import eventually

pytestmark = pytest.mark.needs("broker")


@pytest.fixture
def topic(inspector, patient) -> str:
    """A topic whose partitions have leaders: Kafka lists a new topic a moment before."""
    name = new_topic()
    eventually(lambda: not any(partition.problem for partition in inspector.topic(name).partitions))
    return name


@pytest.fixture
def produce():
    producer = EventProducer()
    yield lambda *messages: producer.send_all(messages, timeout=10)
    producer.close(1)


def values(reading: Reading) -> list[bytes | None]:
    return [message.value for message in reading.messages]


def numbered(count: int) -> list[bytes]:
    return [b"%d" % number for number in range(count)]


def time_between() -> datetime:
    """A time between the messages published before and those published after; Kafka's times are whole milliseconds."""
    moment = datetime.now(UTC) + timedelta(milliseconds=2)
    eventually(lambda: datetime.now(UTC) > moment + timedelta(milliseconds=2))
    return moment


# --- Topics -----------------------------------------------------------------------------------------------------


def test_a_topic_has_its_partitions_with_their_watermarks(inspector, topic):
    put(topic, *numbered(3), partition=1)
    there = inspector.topic(topic)
    assert there.partitions == tuple(Partition(number, 0, 3 if number == 1 else 0) for number in range(PARTITIONS))
    assert there.count == 3
    assert topic in [each.name for each in inspector.topics()]


def test_topics_of_other_installations_and_kafkas_own_are_not_shown(inspector, topic, monkeypatch):
    monkeypatch.setattr(settings, "KAFKA_PREFIX", f"prefix-{secrets.token_hex(4)}-")
    mine = new_topic()
    assert [each.name for each in inspector.topics()] == [mine]
    monkeypatch.setattr(settings, "KAFKA_PREFIX", "")
    assert not [each.name for each in inspector.topics() if each.name.startswith("__")]


def test_asking_for_a_missing_topic_does_not_create_it(inspector):
    name = f"test.{secrets.token_hex(6)}"
    for ask in (inspector.topic, inspector.newest, lambda each: inspector.messages_about(each, key="k")):
        with pytest.raises(NoSuchTopicError):
            ask(name)
    admin = AdminClient({"bootstrap.servers": settings.KAFKA_BOOTSTRAP_SERVERS})
    assert prefixed(name) not in admin.list_topics(timeout=10).topics


def test_a_missing_partition_is_reported(inspector, topic):
    with pytest.raises(NoSuchTopicError):
        inspector.from_offset(topic, partition=PARTITIONS, offset=0)


# --- Messages ---------------------------------------------------------------------------------------------------


def test_messages_found_by_offset_have_key_headers_and_time(inspector, topic):
    put(topic, *numbered(10), key="kim", partition=2, trace=b"1", nothing=None)
    reading = inspector.from_offset(topic, partition=2, offset=4, limit=3)
    assert values(reading) == [b"4", b"5", b"6"]
    assert not reading.is_whole
    first = reading.messages[0]
    assert (first.topic, first.partition, first.offset, first.key) == (topic, 2, 4, b"kim")
    assert first.headers == (("trace", b"1"), ("nothing", None))
    assert abs(first.timestamp_ms / 1000 - datetime.now(UTC).timestamp()) < 60


@pytest.mark.parametrize(("offset", "expected"), [(-5, numbered(3)), (2, [b"2"]), (3, []), (99, [])])
def test_an_offset_outside_of_the_partition_is_replaced_by_the_nearest_one(inspector, topic, offset, expected):
    put(topic, *numbered(3), partition=0)
    reading = inspector.from_offset(topic, partition=0, offset=offset)
    assert values(reading) == expected
    assert reading.is_whole


def test_the_newest_messages_are_those_of_all_partitions(inspector, topic):
    for number in range(12):
        put(topic, b"%d" % number, partition=number % PARTITIONS)
        time_between()
    assert values(inspector.newest(topic, limit=5)) == numbered(12)[7:]
    assert values(inspector.newest(topic, partition=1, limit=2)) == [b"5", b"9"]
    assert inspector.newest(topic, limit=100).is_whole


def test_an_empty_topic_is_read_at_once_and_has_no_messages(inspector, topic):
    reading = inspector.newest(topic)
    assert (reading.messages, reading.looked_at, reading.is_whole) == ((), 0, True)


def test_messages_are_found_by_key_in_the_partition_that_our_producer_chooses(inspector, topic, produce):
    for key in ("21", "foobar", "김민아", "other"):
        produce(*(Outgoing(topic, key, value) for value in numbered(3)))
    for key in ("21", "foobar", "김민아"):
        reading = inspector.messages_about(topic, key=key)
        assert values(reading) == numbered(3)
        assert {message.key for message in reading.messages} == {key.encode()}
        assert reading.is_whole


def test_a_key_in_a_partition_that_another_producer_chose_is_found_there(inspector, topic):
    put(topic, b"astray", key="21", partition=3)
    assert values(inspector.messages_about(topic, key=b"21")) == []
    assert values(inspector.messages_about(topic, key=b"21", partition=3)) == [b"astray"]


def test_messages_are_found_by_key_within_a_span_of_time(inspector, topic, produce):
    produce(Outgoing(topic, "kim", b"before"), Outgoing(topic, "lee", b"lee"))
    since = time_between()
    produce(Outgoing(topic, "kim", b"within"))
    until = time_between()
    produce(Outgoing(topic, "kim", b"after"))
    assert values(inspector.messages_about(topic, key="kim", since=since)) == [b"within", b"after"]
    assert values(inspector.messages_about(topic, key="kim", since=since, until=until)) == [b"within"]
    assert values(inspector.messages_about(topic, key="kim", until=until, limit=1)) == [b"before"]
    assert inspector.messages_about(topic, key="kim", since=time_between()).messages == ()


def test_messages_from_a_time_on_are_the_first_of_all_partitions(inspector, topic):
    put(topic, b"before", partition=0)
    since = time_between()
    for number in range(8):
        put(topic, b"%d" % number, partition=number % PARTITIONS)
        time_between()
    reading = inspector.from_time(topic, since=since, limit=6)
    assert values(reading) == numbered(6)
    assert not reading.is_whole
    assert values(inspector.from_time(topic, since=since, partition=1)) == [b"1", b"5"]
    assert inspector.from_time(topic, since=time_between()).messages == ()


# --- Bounds and outages -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("bound", "most"), [("LOOKED_AT_MOST", 5), ("BYTES_MOST", 5), ("SECONDS_MOST", -1.0)])
def test_a_search_that_reaches_its_limit_ends_and_reports_that(inspector, topic, monkeypatch, bound, most):
    put(topic, *[b"x"] * 50, partition=0)
    monkeypatch.setattr(f"eventbus.inspection.inspector.{bound}", most)
    reading = inspector.from_offset(topic, partition=0, offset=0)
    assert len(reading.messages) == max(most, 0)
    assert not reading.is_whole


def test_inspecting_topics_commits_nothing_and_joins_no_group(inspector, topic):
    put(topic, *numbered(3), partition=0)
    inspector.newest(topic)
    committed = inspector._consumer.committed([TopicPartition(prefixed(topic), 0)], timeout=10)
    assert [place.offset for place in committed] == [-1001]
    assert inspector._consumer.memberid() in (None, "")


def test_an_outage_of_kafka_is_a_transient_error(monkeypatch):
    monkeypatch.setattr(settings, "KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    with Inspector() as inspector, pytest.raises(KafkaException) as raised:
        inspector.topics()
    assert is_transient(raised.value)
