"""A BatchConsumer's calls to its Kafka client, with a fake client and a fake clock."""

import itertools
import logging
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from structlog.contextvars import clear_contextvars, get_contextvars

from eventbus import batch_processor, group_member
from eventbus import consumer as module
from eventbus.consumer import (
    COMMIT_EVERY,
    FIRST_PAUSE,
    IDLE,
    LONGEST_PAUSE,
    POLL,
    STOPS_WITHIN,
    TRY_WITHIN,
    UNPOLLED,
    BatchConsumer,
)
from eventbus.group_member import REJOINS_AFTER
from eventbus.messages import HandledBatch, Incoming, Subscription
from eventbus.metrics import BATCH_SECONDS, RETRIES
from runtime.errors import TransientError
from tests.unit.fakes import Beats, Clock, FakeMessage, KeepingProducer, RecordingClient, Stop

LOST = KafkaError(KafkaError._ASSIGNMENT_LOST)


class Made:
    """A consumer with its fakes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **subscription: Any) -> None:
        self.clock, self.heartbeat, self.producer = Clock(), Beats(), KeepingProducer()
        self.stop = Stop(self.clock)
        self.client = RecordingClient(self.clock)
        self.batches: list[list[int]] = []
        self.failures: list[Exception] = []
        self.handler_threads: set[str] = set()
        # A test before this one may have opened a connection, which a failed attempt would check.
        monkeypatch.setattr(batch_processor, "close_old_connections", lambda: None)
        monkeypatch.setattr(module, "time", self.clock)
        monkeypatch.setattr(module, "Consumer", self._client)
        monkeypatch.setattr(module, "EventProducer", lambda: self.producer)
        monkeypatch.setattr(
            module, "growing_pauses", lambda *, first, most: itertools.chain([first], itertools.repeat(most))
        )
        given = {"group": "readers", "topics": ("asked", "told"), "handle": self.handle} | subscription
        self.consumer = BatchConsumer(Subscription(**given), heartbeat=self.heartbeat)
        self.worker = self.consumer._worker
        # Work is done at once: polls that take no time would leave the thread none.
        monkeypatch.setattr(self.consumer, "_worker", SimpleNamespace(submit=done_at_once, stop=self.worker.stop))

    def _client(self, config: dict[str, Any]) -> RecordingClient:
        self.config = config
        return self.client

    def handle(self, batch: Sequence[Incoming]) -> HandledBatch:
        self.batches.append([message.offset for message in batch])
        self.handler_threads.add(threading.current_thread().name)
        if self.failures:
            raise self.failures.pop(0)
        return HandledBatch()

    def assign(self, *numbers: int, topic: str = "asked") -> list[TopicPartition]:
        partitions = [TopicPartition(f"own-{topic}", number) for number in numbers]
        self.client.assigned = partitions
        self.consumer._on_assign(partitions)
        return partitions


def done_at_once(work: Callable[[], None]) -> Future[None]:
    future: Future[None] = Future()
    try:
        future.set_result(work())
    except Exception as error:  # The future passes it on.
        future.set_exception(error)
    return future


@pytest.fixture
def make(monkeypatch, settings) -> Iterator[Any]:
    settings.KAFKA_PREFIX, settings.KAFKA_BOOTSTRAP_SERVERS = "own-", "127.0.0.1:1"
    made: list[Made] = []
    yield lambda **subscription: made.append(Made(monkeypatch, **subscription)) or made[-1]
    for each in made:
        each.worker.stop(timeout=0.5)
    clear_contextvars()


@pytest.fixture
def made(make) -> Made:
    return make()


def incoming(offset: int, partition: int = 0, topic: str = "asked") -> Incoming:
    return Incoming(topic, partition, offset, b"key", b"good")


def counted(metric: Any, topic: str, group: str = "readers") -> float:
    return metric.labels(topic, group)._value.get()


# --- Its client ---------------------------------------------------------------------------------------------------


def test_a_member_times_out_after_half_a_minute_and_never_commits_automatically(made):
    assert made.config["group.id"] == "own-readers"
    assert made.config["max.poll.interval.ms"] == 30_000
    assert made.config["enable.auto.offset.store"] is False
    assert made.config["enable.auto.commit"] is False


def test_a_consumer_subscribes_to_its_topics_and_is_ready_with_the_first_assignment(made):
    made.consumer.join()
    assert made.client.called("subscribe") == [["own-asked", "own-told"]]
    assert not made.heartbeat.is_ready
    made.client.on_assign(made.client, [TopicPartition("own-told", 2)])
    assert made.heartbeat.is_ready
    assert made.consumer.partitions == {("told", 2)}
    made.client.on_revoke(made.client, [TopicPartition("own-told", 2)])
    assert made.consumer.partitions == set()


def test_every_topic_has_its_metrics_before_there_is_anything_to_count(make):
    make(group="early", topics=("one", "two"))
    samples = [sample for metric in BATCH_SECONDS.collect() for sample in metric.samples]
    assert {sample.labels["topic"] for sample in samples if sample.labels["group"] == "early"} == {"one", "two"}


# --- Its loop -----------------------------------------------------------------------------------------------------


def test_a_consumer_commits_after_the_first_batch_at_intervals_when_idle_and_at_its_end(make):
    waiting = iter([0.0, COMMIT_EVERY, 0.001, 0.0])

    def handle(batch: Sequence[Incoming]) -> HandledBatch:
        made.clock.now += next(waiting)
        return HandledBatch()

    made = make(handle=handle, batch=1)
    made.assign(0)
    made.client.waiting = [FakeMessage(offset, topic="own-asked") for offset in range(4)]
    reads: list[float] = []
    made.client.when_idle = lambda: reads.append(made.clock.now) or (len(reads) == 2 and made.stop.set())
    made.consumer.run(made.stop)
    # The second batch ends exactly when the interval does, which does not count as over yet.
    assert made.client.commits == [[("own-asked", 0, 1)], [("own-asked", 0, 3)], [("own-asked", 0, 4)]]
    assert made.client.called("poll") == [[POLL], [POLL], [IDLE], [POLL], [IDLE], [POLL]]
    assert made.client.calls[-1] == ("close",)
    # Once per iteration, and at most once during each batch.
    assert made.heartbeat.beats >= 6
    assert get_contextvars()["group"] == "readers"


def test_the_log_of_its_thread_names_the_group_before_there_is_a_message(made):
    made.stop.set()
    made.consumer.run(made.stop)
    assert get_contextvars()["group"] == "readers"


def test_handled_batches_are_committed_before_a_stopping_consumer_leaves(make):
    def handle(batch: Sequence[Incoming]) -> HandledBatch:
        made.stop.set()
        return HandledBatch()

    made = make(handle=handle)
    made.assign(0)
    made.consumer._commits_at = math.inf
    made.client.waiting = [FakeMessage(6, topic="own-asked")]
    made.consumer.run(made.stop)
    assert made.client.commits == [[("own-asked", 0, 7)]]
    assert [call[0] for call in made.client.calls[-2:]] == ["commit", "close"]


def test_a_batch_that_is_given_up_is_not_committed(make):
    def handle(batch: Sequence[Incoming]) -> HandledBatch:
        made.stop.set()
        raise TransientError("away")

    made = make(handle=handle)
    made.assign(0)
    made.client.waiting = [FakeMessage(6, topic="own-asked")]
    made.consumer.run(made.stop)
    assert made.client.commits == []


def test_an_error_ends_the_consumer_which_leaves_its_group(made):
    made.assign(0)
    made.client.waiting = [FakeMessage(topic="own-asked")]
    # Ten failures in a row would be a bug of the handler; an error of the producer ends the consumer at once.
    made.producer.send_all = lambda messages, *, timeout: 1 / 0
    with pytest.raises(ZeroDivisionError):
        made.consumer.run(made.stop)
    assert made.client.commits == []
    assert made.client.calls[-1] == ("close",)


def test_a_consumer_without_an_assignment_joins_its_group_again(made, monkeypatch):
    monkeypatch.setattr(group_member, "time", made.clock)
    idle: list[int] = []
    made.client.step = REJOINS_AFTER + 1
    made.client.when_idle = lambda: idle.append(1) or (len(idle) == 2 and made.stop.set())
    made.consumer.run(made.stop)
    subscription = ("subscribe", "own-asked", "own-told")
    assert made.client.calls == [
        subscription, ("poll", POLL), ("unsubscribe",), subscription, ("poll", POLL), ("close",),
    ]  # fmt: skip


def test_at_its_end_its_threads_have_half_a_second(made, monkeypatch):
    stopped = []
    monkeypatch.setattr(made.consumer._worker, "stop", lambda *, timeout: stopped.append(timeout))
    made.consumer.close()
    assert (stopped, made.client.calls, made.producer.closed) == ([0.5], [("close",)], [0.5])


# --- A batch ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("subscription", "asked"),
    [
        ({}, [[7, 0]]),
        ({"batch": 3}, [[2, 0]]),
        ({"batch": 9}, [[7, 0]]),
        ({"gathers": 0.5}, [[1, 0.5], [6, 0]]),
        ({"gathers": 0.5, "batch": 1}, [[0, 0.5], [0, 0]]),
    ],
)
def test_a_batch_has_as_many_as_the_settings_and_its_subscription_allow(make, settings, subscription, asked):
    settings.KAFKA_BATCH_SIZE = 8
    made = make(**subscription)
    made.client.waiting = [FakeMessage(offset, topic="own-asked") for offset in range(20)]
    batch = made.consumer.next_batch(1.5)
    assert made.client.called("poll") == [[1.5]]
    assert made.client.called("consume") == asked
    assert [message.offset for message in batch] == list(range(min(8, subscription.get("batch") or 8)))


def test_without_a_first_message_there_is_no_batch_and_no_more_waiting(made):
    assert made.consumer.next_batch() == []
    assert made.client.calls == [("poll", POLL)]


def test_a_batch_holds_those_of_its_partitions_that_are_assigned_and_no_error_reports(made, caplog):
    made.assign(0, 1, 2)
    made.client.waiting = [
        FakeMessage(4, topic="own-asked", partition=1), FakeMessage(error=KafkaError(KafkaError._TRANSPORT, "broken")),
        FakeMessage(5, topic="own-asked", partition=2), FakeMessage(6, topic="own-told", partition=0),
    ]  # fmt: skip
    batch = made.consumer.next_batch()
    assert [(message.topic, message.partition, message.offset) for message in batch] == [
        ("asked", 1, 4), ("asked", 2, 5), ("told", 0, 6),
    ]  # fmt: skip
    assert made.consumer._held == {("asked", 1), ("asked", 2)}
    assert "Kafka reports: broken" in caplog.text


# --- Attempts -----------------------------------------------------------------------------------------------------


def test_a_batch_is_tried_again_after_growing_pauses_until_it_is_handled(made, caplog):
    caplog.set_level(logging.WARNING)
    made.failures = [ConnectionError("it is\ngone"), TransientError("away"), TransientError("away")]
    made.failures[2].retry_after = LONGEST_PAUSE + 5
    made.consumer._held = {("asked", 0)}
    retries = [counted(RETRIES, topic) for topic in ("asked", "told")]
    assert made.consumer.work_through([incoming(0), incoming(1)], made.stop)
    assert made.batches == [[0, 1]] * 4
    assert [counted(RETRIES, topic) for topic in ("asked", "told")] == [retries[0] + 3, retries[1]]
    assert [record.getMessage() for record in caplog.records] == [
        "a batch of 2 is retried in 0.1 s: ConnectionError: it is",
        "a batch of 2 is retried in 10.0 s: TransientError: away",
        "a batch of 2 is retried in 15.0 s: TransientError: away",
    ]
    assert made.clock.now == pytest.approx(1000 + FIRST_PAUSE + LONGEST_PAUSE + LONGEST_PAUSE + 5)
    assert made.heartbeat.beats > 25, "it beats at least once a second"


def test_the_handler_has_a_thread_that_is_named_after_the_group(made):
    made.consumer._worker = made.worker
    made.consumer._polls_from = math.inf
    assert made.consumer.work_through([incoming(0)], made.stop)
    assert made.handler_threads == {"handler of readers"}


def test_while_a_batch_takes_long_the_consumer_polls_with_its_partitions_paused(made):
    made.assign(0, 1)
    made.failures = [TransientError("away")]
    made.failures[0].retry_after = 3.0
    made.consumer._held = {("asked", 0)}
    made.client.calls.clear()
    assert made.consumer.work_through([incoming(0)], made.stop)
    assert sum(made.stop.waits) == pytest.approx(UNPOLLED)
    assert sum(timeout for [timeout] in made.client.called("poll")) == pytest.approx(3.0 - UNPOLLED)
    both = [("own-asked", 0), ("own-asked", 1)]
    assert made.client.called("pause") == made.client.called("resume") == [both]
    assert (made.client.calls[0][0], made.client.calls[-1][0]) == ("pause", "resume")


def test_a_batch_within_its_time_pauses_no_partition(made):
    made.failures = [TransientError("away")]
    made.consumer._held = {("asked", 0)}
    assert made.consumer.work_through([incoming(0)], made.stop)
    assert made.client.calls == []


@pytest.mark.parametrize("is_stopped", [True, False], ids=["a stop request", "a revocation of all its partitions"])
def test_a_batch_whose_retry_is_prevented_is_not_done(made, is_stopped):
    made.failures = [TransientError("away")]
    made.consumer._held = {("asked", 0)} if is_stopped else set()
    if is_stopped:
        made.stop.set()
    assert not made.consumer.work_through([incoming(0)], made.stop)
    assert made.batches == [[0]]


def test_an_error_of_the_program_is_raised_and_the_partitions_are_read_again(made):
    made.assign(0)
    made.consumer._pause()
    made.producer.send_all = lambda messages, *, timeout: 1 / 0
    with pytest.raises(ZeroDivisionError):
        made.consumer.work_through([incoming(0)], made.stop)
    assert made.client.calls[-1] == ("resume", ("own-asked", 0))


def test_work_that_does_not_end_is_abandoned_a_while_after_a_stop_request(made, caplog):
    made.client.step = 1.0
    made.consumer._polls_from = 0.0
    made.consumer._worker.submit = lambda work: Future()
    made.stop.set()
    made.clock.now = 5000.0
    real = made.consumer._has_ended
    made.consumer._has_ended = lambda work, stop: setattr(made.consumer, "_polls_from", 0.0) or real(work, stop)
    assert not made.consumer.work_through([incoming(0), incoming(1)], made.stop)
    assert made.clock.now == 5000.0 + STOPS_WITHIN
    assert "abandoned a batch of 2 in order to stop" in caplog.text


def test_work_that_ends_soon_after_a_stop_request_is_not_abandoned(made):
    made.client.step = 1.0
    made.consumer._polls_from = 0.0
    work: Future[None] = Future()
    made.client.when_idle = lambda: made.clock.now == 1000.0 + STOPS_WITHIN - 1 and work.set_result(None)
    made.stop.set()
    assert made.consumer._has_ended(work, made.stop)


def test_the_time_for_abandoning_work_begins_with_the_stop_request(made):
    made.client.step = 1.0
    made.consumer._polls_from = 0.0
    made.client.when_idle = lambda: made.clock.now == 1020.0 and made.stop.set()
    assert not made.consumer._has_ended(Future(), made.stop)
    assert made.clock.now == 1020.0 + STOPS_WITHIN


def test_one_attempt_that_is_stuck_stops_the_heartbeat_but_not_the_polling(made):
    made.client.step = 1.0
    made.consumer._polls_from = 0.0
    work: Future[None] = Future()
    made.client.when_idle = lambda: made.clock.now == 1000.0 + TRY_WITHIN + 5 and work.set_result(None)
    assert made.consumer._has_ended(work, made.stop)
    assert made.heartbeat.beats == TRY_WITHIN
    assert len(made.client.called("poll")) == TRY_WITHIN + 5


def test_a_stop_request_ends_a_pause(made):
    made.stop.wait = lambda timeout: made.stop.waits.append(timeout) or made.stop.set()
    assert not made.consumer._has_waited(3.0, made.stop)
    assert len(made.stop.waits) == 1
    assert not made.consumer._has_waited(3.0, made.stop)
    assert len(made.stop.waits) == 1


def test_a_pause_lasts_as_long_as_it_should_and_beats(made):
    assert made.consumer._has_waited(0.5, made.stop)
    assert sum(made.stop.waits) == pytest.approx(0.5)
    assert made.heartbeat.beats == len(made.stop.waits)
    assert made.consumer._has_waited(0.0, made.stop)
    assert made.heartbeat.beats == len(made.stop.waits)


# --- Standing by --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("at_most", "waits"), [(0.05, 0.05), (POLL, POLL), (9.0, POLL)])
@pytest.mark.parametrize("polls_in", [0.001, 0.0, -1.0])
def test_the_consumer_waits_briefly_until_it_is_time_to_poll(made, at_most, waits, polls_in):
    made.consumer._polls_from = made.clock.now + polls_in
    made.consumer._stand_by(made.stop.wait, at_most)
    assert (made.stop.waits, made.client.called("poll")) == (([waits], []) if polls_in > 0 else ([], [[waits]]))


def test_the_consumer_waits_for_as_long_as_a_poll_by_default(made):
    made.consumer._stand_by(made.stop.wait)
    made.consumer._polls_from = 0.0
    made.consumer._stand_by(made.stop.wait)
    assert (made.stop.waits, made.client.called("poll")) == ([POLL], [[POLL]])


def test_partitions_are_paused_once_and_resumed_once(made):
    made.assign(0)
    made.client.calls.clear()
    made.consumer._resume()
    for _ in range(2):
        made.consumer._polls_from = 0.0
        made.consumer._stand_by(made.stop.wait)
    for _ in range(2):
        made.consumer._resume()
    assert [call for call in made.client.calls if call[0] != "poll"] == [
        ("pause", ("own-asked", 0)), ("resume", ("own-asked", 0)),
    ]  # fmt: skip


def test_a_message_that_arrives_during_a_pause_is_read_again_later_and_an_error_report_is_not(made):
    made.consumer._polls_from = 0.0
    made.client.waiting = [
        FakeMessage(17, topic="own-told", partition=3), FakeMessage(error=KafkaError(KafkaError._TRANSPORT)),
    ]  # fmt: skip
    for _ in range(3):
        made.consumer._stand_by(made.stop.wait)
    assert made.client.called("seek") == [["own-told", 3, 17]]


# --- Partitions ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_paused", [False, True])
def test_partitions_that_are_assigned_are_paused_only_while_a_batch_is_in_hand(made, is_paused, caplog):
    caplog.set_level(logging.INFO)
    if is_paused:
        made.consumer._pause()
    made.client.calls.clear()
    partitions = [TopicPartition(f"own-{topic}", number) for topic, number in (("told", 1), ("asked", 2), ("asked", 0))]
    made.consumer._on_assign(partitions)
    [call] = made.client.calls
    assert call == ("pause" if is_paused else "resume", ("own-told", 1), ("own-asked", 2), ("own-asked", 0))
    assert made.consumer.partitions == {("told", 1), ("asked", 2), ("asked", 0)}
    assert "assigned partitions asked[0, 2], told[1]" in caplog.text


def test_all_state_of_revoked_partitions_is_dropped(made, caplog):
    caplog.set_level(logging.INFO)
    first, _ = made.assign(0, 1)
    made.consumer._held = {("asked", 0), ("asked", 1)}
    made.consumer._done = {("asked", 0): 4, ("asked", 1): 5}
    made.consumer._on_revoke([first])
    assert (made.consumer.partitions, made.consumer._held) == ({("asked", 1)}, {("asked", 1)})
    assert made.consumer._done == {("asked", 1): 5}
    made.consumer._on_revoke([])
    assert "revoked partitions asked[0]" in caplog.text
    assert "revoked partitions none" in caplog.text


# --- Offsets ------------------------------------------------------------------------------------------------------


def test_the_offsets_of_all_partitions_are_committed_together_and_once(made):
    made.consumer._done = {("asked", 0): 5, ("told", 3): 1}
    made.consumer.commit_done()
    assert made.client.commits == [[("own-asked", 0, 5), ("own-told", 3, 1)]]
    assert made.consumer._commits_at == made.clock.now + COMMIT_EVERY
    made.clock.now += 1.0
    made.consumer.commit_done()
    assert len(made.client.commits) == 1
    assert made.consumer._commits_at == made.clock.now + COMMIT_EVERY


def test_after_a_partly_failed_commit_only_retriable_offsets_are_kept(made, caplog):
    made.consumer._done = {("asked", 0): 5, ("asked", 1): 6, ("told", 3): 1}
    later = KafkaError(KafkaError.NOT_COORDINATOR, "ask another")
    errors = {0: None, 1: LOST, 3: later}
    made.client.commit_result = lambda offsets: [
        type("Result", (), {"topic": each.topic, "partition": each.partition, "error": errors[each.partition]})
        for each in offsets
    ]
    made.consumer.commit_done()
    assert made.consumer._done == {("told", 3): 1}
    assert [record.getMessage() for record in caplog.records] == [
        f"the offset of asked[1] was not committed: {LOST.str()}",
        "the offset of told[3] was not committed: ask another",
    ]


@pytest.mark.parametrize(("error", "kept"), [(LOST, {}), (KafkaError(KafkaError._TIMED_OUT), {("asked", 0): 5})])
def test_a_commit_that_fails_as_a_whole_fails_for_each_partition(made, error, kept):
    made.consumer._done = {("asked", 0): 5}

    def fail(offsets: list[TopicPartition]) -> list[TopicPartition]:
        raise KafkaException(error)

    made.client.commit_result = fail
    made.consumer.commit_done()
    assert made.consumer._done == kept


def test_a_permanent_error_is_raised(made):
    made.consumer._done = {("asked", 0): 5}
    with pytest.raises(KafkaException) as raised:
        made.consumer._note_commit(("asked", 0), KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED))
    assert raised.value.args[0].code() == KafkaError.TOPIC_AUTHORIZATION_FAILED


def test_the_offset_to_commit_is_the_highest_of_each_partition_that_is_held(made):
    made.consumer._held = {("asked", 0), ("told", 0)}
    made.consumer.note_done([incoming(6), incoming(4), incoming(0, topic="told"), incoming(9, partition=1)])
    assert made.consumer._done == {("asked", 0): 7, ("told", 0): 1}
    made.consumer.note_done([incoming(2)])
    assert made.consumer._done[("asked", 0)] == 7
