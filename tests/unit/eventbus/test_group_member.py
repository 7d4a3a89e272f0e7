"""The membership of a consumer group, with a fake client and a fake clock."""

import logging
import threading
from unittest.mock import Mock

import pytest
from confluent_kafka import TopicPartition

from eventbus import group_member
from eventbus.clients import close_consumer
from eventbus.errors import StrandedError
from eventbus.group_member import CHECKED_EVERY, REJOINS_AFTER, GroupMember, group_config, run_reader
from tests.unit.fakes import Beats, Clock, RecordingClient
from tests.waiting import PATIENCE

PARTITIONS = [TopicPartition("own-asked", 0), TopicPartition("own-asked", 3)]


@pytest.fixture
def clock(monkeypatch, settings) -> Clock:
    settings.KAFKA_PREFIX = "own-"
    clock = Clock()
    monkeypatch.setattr(group_member, "time", clock)
    return clock


@pytest.fixture
def client(clock) -> RecordingClient:
    return RecordingClient(clock)


def test_offsets_are_committed_by_hand_and_a_new_group_begins_at_the_start(clock):
    assert group_config("readers") == {
        "group.id": "own-readers",
        "auto.offset.reset": "earliest",
        "session.timeout.ms": 6000,
        "enable.auto.commit": False,
        "topic.metadata.refresh.interval.ms": 10_000,
    }


def test_a_member_subscribes_to_its_topics_and_is_ready_once_partitions_are_assigned(client):
    heartbeat, assigned, revoked = Beats(), [], []
    member = GroupMember(
        client, ["asked", "told"], heartbeat=heartbeat, on_assign=assigned.append, on_revoke=revoked.append
    )
    assert not member.awaits_assignment
    member.join()
    assert client.calls == [("subscribe", "own-asked", "own-told")]
    assert member.awaits_assignment
    assert not heartbeat.is_ready
    client.on_assign(client, PARTITIONS)
    assert client.assigned == PARTITIONS
    assert not member.awaits_assignment
    assert (assigned, revoked) == ([PARTITIONS], [])
    assert heartbeat.is_ready
    client.on_revoke(client, PARTITIONS[1:])
    assert member.awaits_assignment
    assert (assigned, revoked) == ([PARTITIONS], [PARTITIONS[1:]])


def test_a_member_needs_no_callbacks(client):
    member = GroupMember(client, ["asked"], heartbeat=Beats())
    member.join()
    client.on_assign(client, PARTITIONS)
    client.on_revoke(client, PARTITIONS)
    assert member.awaits_assignment


@pytest.mark.parametrize("is_revoked", [False, True], ids=["after joining", "after a revocation"])
def test_a_member_rejoins_when_no_assignment_has_come_for_too_long_and_not_before(client, clock, caplog, is_revoked):
    caplog.set_level(logging.WARNING)
    member = GroupMember(client, ["asked"], heartbeat=Beats())
    member.join()
    if is_revoked:
        client.on_assign(client, PARTITIONS)
        clock.now += 10 * REJOINS_AFTER
        member.rejoin_if_forgotten(threading.Event())
        client.on_revoke(client, PARTITIONS)
    client.calls.clear()
    for waited in (REJOINS_AFTER, 1.0):
        assert client.calls == []
        clock.now += waited
        member.rejoin_if_forgotten(threading.Event())
    assert client.calls == [("unsubscribe",), ("subscribe", "own-asked")]
    member.rejoin_if_forgotten(threading.Event())
    assert len(client.calls) == 2
    assert "no partition assignment for 60 s: rejoining the group" in caplog.text


def test_a_stranded_client_is_reported_while_an_assignment_is_missing_and_only_then(client, clock, monkeypatch):
    monkeypatch.setattr(group_member, "is_stranded", lambda asked, _: asked is client)
    member = GroupMember(client, ["asked"], heartbeat=Beats())
    member.join()
    clock.now += CHECKED_EVERY
    member.rejoin_if_forgotten(threading.Event())
    clock.now += 0.1
    with pytest.raises(StrandedError):
        member.rejoin_if_forgotten(threading.Event())
    client.on_assign(client, PARTITIONS)
    clock.now += 10 * CHECKED_EVERY
    member.rejoin_if_forgotten(threading.Event())
    client.on_revoke(client, PARTITIONS)
    clock.now += CHECKED_EVERY
    member.rejoin_if_forgotten(threading.Event())
    clock.now += 0.1
    with pytest.raises(StrandedError):
        member.rejoin_if_forgotten(threading.Event())


def test_a_member_without_an_assignment_keeps_rejoining(client, clock, monkeypatch):
    asked = []
    monkeypatch.setattr(group_member, "is_stranded", lambda client, _: asked.append(client))
    member = GroupMember(client, ["asked"], heartbeat=Beats())
    member.join()
    for _ in range(10):
        clock.now += CHECKED_EVERY / 2 + 0.01
        member.rejoin_if_forgotten(threading.Event())
    assert asked == [client] * 5


def test_closing_a_consumer_is_limited_in_time():
    begun, ends = threading.Event(), threading.Event()

    def close() -> None:
        begun.set()
        ends.wait(PATIENCE)

    close_consumer(Mock(close=close), within=0.05)
    assert begun.is_set()
    ends.set()


def test_an_error_while_a_consumer_is_closed_is_not_lost():
    with pytest.raises(ValueError, match="in a callback"):
        close_consumer(Mock(close=Mock(side_effect=ValueError("in a callback"))))


def test_a_reader_is_replaced_only_when_it_is_stranded():
    stop, runs = threading.Event(), []

    class Stranded:
        def run(self, _: threading.Event) -> None:
            runs.append("stranded")
            raise StrandedError

    class Sound:
        def run(self, asked: threading.Event) -> None:
            runs.append("sound")
            asked.set()

    run_reader(iter([Stranded(), Stranded(), Sound(), Sound()]).__next__, stop)
    assert runs == ["stranded", "stranded", "sound"]
    with pytest.raises(ValueError, match="another error"):
        run_reader(Mock(return_value=Mock(run=Mock(side_effect=ValueError("another error")))), threading.Event())
