"""The consumer groups as an operator sees them, on the embedded broker and on Apache Kafka."""

import secrets

import pytest
from confluent_kafka import KafkaException
from django.conf import settings

from eventbus.inspection.groups import Group, read_groups
from eventbus.inspection.inspector import Inspector
from eventbus.inspection.membership import Membership
from eventbus.messages import Subscription
from tests.broker import RecordingHandler, committed, consuming, make_topics, put, skip_to_the_end
from tests.waiting import eventually

pytestmark = pytest.mark.needs("broker")
handler = RecordingHandler()
# The subscription that the settings of these tests name, as EVENT_CONSUMERS does.
asked = Subscription(group="answerer", topics=("asked",), handle=handler)


@pytest.fixture(autouse=True)
def installation(monkeypatch, patient, inspector):
    """One of the test's own: a prefix before its names, and one service that reads one topic."""
    monkeypatch.setattr(settings, "KAFKA_PREFIX", f"prefix-{secrets.token_hex(4)}-")
    monkeypatch.setattr(settings, "EVENT_CONSUMERS", {"answerer": f"{__name__}.asked"})
    make_topics(asked.every_topic)
    eventually(lambda: not any(each.problem for topic in inspector.topics() for each in topic.partitions))


def groups(inspector: Inspector) -> dict[str, Group]:
    return {group.name: group for group in read_groups(inspector.topics())}


def test_configured_groups_have_a_lag_even_if_they_never_had_a_member(inspector):
    put("asked", b"1", b"2", b"3", partition=1)
    found = groups(inspector)
    assert set(found) == {"answerer", "dead-letters"}
    assert found["answerer"].lag == 3
    assert found["dead-letters"].lag == 0
    assert {each.topic for each in found["dead-letters"].progress} == {"asked.answerer.dlt"}
    # The embedded broker can't list the members.
    assert found["answerer"].membership == (None if settings.KAFKA_EMBEDDED else Membership("Dead", ()))


def test_lag_counts_the_uncommitted_messages(inspector):
    put("asked", b"1", b"2", b"3", partition=1)
    skip_to_the_end("asked", group="answerer")
    put("asked", b"one more", partition=1)
    group = groups(inspector)["answerer"]
    assert [(each.partition.number, each.committed, each.lag) for each in group.progress] == [
        (0, 0, 0), (1, 3, 1), (2, 0, 0), (3, 0, 0),
    ]  # fmt: skip


@pytest.mark.needs("kafka")
def test_members_are_listed_with_their_partitions_even_in_groups_that_are_not_configured(inspector):
    stranger = Subscription(group="stranger", topics=("asked",), handle=handler)
    with consuming(stranger), consuming(asked):
        put("asked", b"read", partition=1)
        eventually(lambda: committed(asked) == {1: 1})
        group = groups(inspector)["answerer"]
        assert (group.membership.state, group.lag) == ("Stable", 0)
        [member] = group.membership.members
        assert member.reads == tuple(("asked", number) for number in range(4))
        assert member.by_topic == [("asked", [0, 1, 2, 3])]
        assert member.host == "127.0.0.1"
        assert groups(inspector)["stranger"].membership.state == "Stable"
    eventually(lambda: groups(inspector)["answerer"].membership == Membership("Empty", ()))


def test_an_unreachable_kafka_is_reported(monkeypatch):
    monkeypatch.setattr("eventbus.inspection.inspector.ANSWERS_WITHIN", 0.2)
    monkeypatch.setattr(settings, "KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    with Inspector() as away, pytest.raises(KafkaException):
        read_groups(away.topics())
