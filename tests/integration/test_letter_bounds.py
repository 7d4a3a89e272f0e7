"""Dead letters at their bounds: odd headers, chunks of actions, and a collector whose database fails."""

import logging
import math
import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from confluent_kafka import KafkaError, KafkaException
from django.db import DataError, OperationalError

from eventbus import group_member
from eventbus.deadletters import collector, letters
from eventbus.deadletters.collector import COUNTED_EVERY, POLL, DeadLetterCollector
from eventbus.deadletters.letters import (
    ACKNOWLEDGED_WITHIN,
    BIGINT_MAX,
    CHUNK,
    LetterResult,
    Origin,
    dead_letter_origins,
    discard,
    purge_dead_letters,
    replay,
    store_letters,
)
from eventbus.errors import DeliveryError
from eventbus.group_member import REJOINS_AFTER, group_config
from eventbus.messages import Incoming, Outgoing
from eventbus.metrics import DEAD_LETTERS_WAITING
from eventbus.models import DeadLetter, DeadLetterAction
from tests.unit.fakes import Beats, Clock, FakeMessage, RecordingClient

pytestmark = pytest.mark.django_db

TOPIC = "asked.readers.dlt"
ORIGINS = {TOPIC: Origin("asked", "readers")}
PUT_ASIDE = datetime(2026, 3, 1, 12, tzinfo=UTC)


def letter(offset: int = 0, *headers: tuple[str, bytes | None], at: datetime = PUT_ASIDE) -> Incoming:
    return Incoming(TOPIC, 1, offset, b"kim", b"value %d" % offset, headers, int(at.timestamp() * 1000))


def kept(count: int, *headers: tuple[str, bytes | None]) -> list[int]:
    store_letters([letter(offset, *headers) for offset in range(count)], ORIGINS)
    return list(DeadLetter.objects.order_by("letter_offset").values_list("pk", flat=True))


class KeepingProducer:
    """Keeps the messages that it is asked to send; reports these values as not acknowledged."""

    def __init__(self, *failing: bytes) -> None:
        self.chunks: list[list[Outgoing]] = []
        self.timeouts: list[float] = []
        self._failing = failing

    def send_all(self, messages: Sequence[Outgoing], *, timeout: float) -> None:
        self.chunks.append(list(messages))
        self.timeouts.append(timeout)
        if failed := [message for message in messages if message.value in self._failing]:
            raise DeliveryError(failed, "it was told to fail")


# --- The table --------------------------------------------------------------------------------------------------


def test_a_row_has_the_place_of_the_letter_and_what_its_headers_say_of_the_message():
    headers = [
        ("ce_id", b"1"), ("dlt-partition", b"3"), ("dlt-offset", b"17"), ("dlt-timestamp", b"1772366400123"),
        ("dlt-error", b"some.Error"), ("dlt-message", b"what it said"), ("dlt-value-bytes", b"70"),
        ("dlt-key-bytes", b"80"), ("dlt-headers-dropped", b"9"), ("dlt-", b"prefix only"),
    ]  # fmt: skip
    store_letters([letter(5, *headers)], ORIGINS)
    row = DeadLetter.objects.get()
    assert (row.letter_topic, row.letter_partition, row.letter_offset, row.put_aside_at) == (TOPIC, 1, 5, PUT_ASIDE)
    assert (row.topic, row.group, row.partition, row.offset) == ("asked", "readers", 3, 17)
    assert row.sent_at == PUT_ASIDE + timedelta(milliseconds=123)
    assert (bytes(row.key), bytes(row.value), row.error, row.message) == (
        b"kim", b"value 5", "some.Error", "what it said",
    )  # fmt: skip
    assert row.cut == "value of 70 bytes, key of 80 bytes, 9 headers"
    assert [header[0] for header in letters.headers_from_document(row.headers)] == ["ce_id"]


@pytest.mark.parametrize(
    ("written", "number"),
    [
        (b"0", 0), (b"-1", None), (str(BIGINT_MAX).encode(), BIGINT_MAX), (str(BIGINT_MAX + 1).encode(), None),
        (b"x", None), (b"", None), (None, None), (b" 7", None), (b"+7", None), (b"1_0", None), ("٣".encode(), None),
    ],
)  # fmt: skip
def test_a_number_of_a_header_is_one_that_the_column_can_store(written, number):
    store_letters([letter(0, ("dlt-offset", written), ("dlt-partition", written))], ORIGINS)
    row = DeadLetter.objects.get()
    assert (row.offset, row.partition) == (number, number)
    assert row.sent_at is None


def test_a_letter_without_a_time_gets_the_earliest_one_and_texts_are_cut_to_their_columns():
    long = b"\x00" + b"e" * 10_000
    at = Incoming(TOPIC, 0, 0, None, None, (("dlt-error", long), ("dlt-message", long)), None)
    store_letters([at], ORIGINS)
    row = DeadLetter.objects.get()
    assert (row.put_aside_at, row.key, row.value, row.cut) == (datetime(1970, 1, 1, tzinfo=UTC), None, None, "")
    assert row.error == "\ufffd" + "e" * (letters.ERROR_MAX - 1)
    assert row.message == "\ufffd" + "e" * (letters.ERROR_TEXT_MAX - 1)


@pytest.mark.parametrize("text", [None, b"\xff"])
def test_a_missing_text_is_stored_empty_and_invalid_bytes_are_replaced(text):
    store_letters([letter(0, ("dlt-error", text))], ORIGINS)
    assert DeadLetter.objects.get().error == ("" if text is None else "\ufffd")


def test_a_purge_deletes_what_is_older_than_the_time_oldest_first_up_to_its_limit():
    for offset, age in enumerate([0, 1, 3, 2]):
        store_letters([letter(offset, at=PUT_ASIDE - timedelta(milliseconds=age))], ORIGINS)
    assert purge_dead_letters(PUT_ASIDE, 2) == 2
    assert set(DeadLetter.objects.values_list("letter_offset", flat=True)) == {0, 1}
    assert purge_dead_letters(PUT_ASIDE, 2) == 1
    assert purge_dead_letters(PUT_ASIDE, 2) == 0
    assert DeadLetter.objects.get().letter_offset == 0


def test_a_letter_that_is_read_again_is_left_as_it_is():
    [first] = kept(1)
    DeadLetter.objects.update(state=DeadLetter.State.REPLAYED)
    assert kept(2)[0] == first
    assert DeadLetter.objects.get(pk=first).state == DeadLetter.State.REPLAYED
    assert DeadLetter.objects.count() == 2


def test_the_origins_are_those_of_every_service(settings):
    origins = dead_letter_origins()
    assert set(origins) >= {"user.newUser.req.chat.dlt", "user.newUser.req.customer.dlt", "user.newUser.res.auth.dlt"}
    assert origins["user.newUser.req.chat.dlt"] == Origin("user.newUser.req", "chat")
    settings.EVENT_CONSUMERS = {"chat": settings.EVENT_CONSUMERS["chat"]}
    assert {each.group for each in dead_letter_origins().values()} == {"chat", "chat-reconcile"}


# --- Actions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [CHUNK - 1, CHUNK, CHUNK + 1])
def test_letters_are_replayed_once_each_in_the_given_order_by_chunks(count):
    ids = kept(count)[::-1]
    producer = KeepingProducer()
    assert list(replay([*ids, ids[0]], by="mina", producer=producer)) == [LetterResult(each) for each in ids]
    assert [len(chunk) for chunk in producer.chunks] == ([count] if count <= CHUNK else [CHUNK, count - CHUNK])
    assert producer.timeouts == [ACKNOWLEDGED_WITHIN] * len(producer.chunks)
    sent = [message for chunk in producer.chunks for message in chunk]
    assert [message.value for message in sent] == [b"value %d" % offset for offset in reversed(range(count))]
    assert {(message.topic, message.key) for message in sent} == {("asked", b"kim")}
    assert set(DeadLetterAction.objects.values_list("by", "reason")) == {("mina", "")}


def test_a_message_without_key_or_value_is_sent_without():
    store_letters([Incoming(TOPIC, 0, 0, None, None, (("ce_id", b"1"),), 1)], ORIGINS)
    producer = KeepingProducer()
    list(replay([DeadLetter.objects.get().pk], by="mina", producer=producer))
    [[message]] = producer.chunks
    assert (message.key, message.value, message.headers) == (None, None, (("ce_id", b"1"),))


def test_actions_are_recorded_with_author_and_reason_and_logged(caplog):
    caplog.set_level(logging.INFO)
    first, second = kept(2)
    list(replay([first], by="mina, in the admin", reason="again", producer=KeepingProducer()))
    assert list(discard([second], by="jun", reason="useless")) == [LetterResult(second)]
    assert list(DeadLetter.objects.order_by("letter_offset").values_list("state", flat=True)) == [
        "replayed", "discarded",
    ]  # fmt: skip
    actions = DeadLetterAction.objects.order_by("pk").values_list("letter_id", "action", "by", "reason")
    assert list(actions) == [
        (first, "replayed", "mina, in the admin", "again"),
        (second, "discarded", "jun", "useless"),
    ]
    logged = [record for record in caplog.records if record.name == "security"]
    said = [(record.getMessage(), record.actor, record.subject, record.detail) for record in logged]
    assert said == [
        ("dead_letter_handled", "mina", str(first), "replayed"),
        ("dead_letter_handled", "jun", str(second), "discarded"),
    ]


def test_an_unacknowledged_letter_keeps_waiting_and_the_error_is_raised_after_the_others_are_marked():
    ids = kept(3)
    producer = KeepingProducer(b"value 1")
    outcomes = replay(ids, by="mina", producer=producer)
    assert [next(outcomes), next(outcomes)] == [LetterResult(ids[0]), LetterResult(ids[2])]
    with pytest.raises(DeliveryError):
        next(outcomes)
    assert list(DeadLetter.objects.order_by("pk").values_list("state", flat=True)) == [
        "replayed", "waiting", "replayed",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("state", "said"), [("replayed", "It has already been replayed."), ("discarded", "It has already been discarded.")]
)
@pytest.mark.parametrize("action", ["replay", "discard"])
def test_handled_letters_are_refused_unless_repeated_explicitly_and_others_are_processed(state, said, action):
    done, waiting = kept(2)
    DeadLetter.objects.filter(pk=done).update(state=state)

    def outcomes(**options: bool) -> list[LetterResult]:
        if action == "replay":
            return list(replay([done, waiting], by="mina", producer=KeepingProducer(), **options))
        return list(discard([done, waiting], by="mina", reason="", **options))

    assert outcomes() == [LetterResult(done, said), LetterResult(waiting)]
    assert outcomes(again=True) == [LetterResult(done), LetterResult(waiting)]


def test_a_truncated_letter_is_never_replayed_but_may_be_discarded():
    [cut] = kept(1, ("dlt-value-bytes", b"70"))
    [result] = replay([cut], by="mina", producer=KeepingProducer(), again=True)
    assert result.refusal == (
        "It was truncated to fit (value of 70 bytes), so it cannot be replayed. Ask its sender to send it again."
    )
    assert list(discard([cut], by="mina", reason="cut")) == [LetterResult(cut)]


@pytest.mark.parametrize("number", [0, BIGINT_MAX, BIGINT_MAX + 1])
def test_a_number_that_no_letter_has_is_refused(number):
    assert list(discard([number], by="mina", reason="")) == [LetterResult(number, "There is no such letter.")]


def test_a_letter_that_was_purged_meanwhile_gets_no_action():
    [there] = kept(1)
    letters._note([there, there + 1], DeadLetter.State.DISCARDED, by="mina", reason="")
    assert list(DeadLetterAction.objects.values_list("letter_id", flat=True)) == [there]


# --- The collector ----------------------------------------------------------------------------------------------


class Polled:
    """A Kafka client with these messages; the first one is returned by a poll."""

    def __init__(self, *messages: object, failure: KafkaException | None = None) -> None:
        self.messages, self.failure = list(messages), failure
        self.asked: list[tuple[object, ...]] = []

    def poll(self, timeout: float) -> object:
        self.asked.append(("poll", timeout))
        return self.messages.pop(0) if self.messages else None

    def consume(self, count: int, timeout: float) -> list[object]:
        self.asked.append(("consume", count, timeout))
        return [self.messages.pop(0) for _ in range(min(count, len(self.messages)))]

    def commit(self, *, asynchronous: bool) -> None:
        self.asked.append(("commit", asynchronous))
        if self.failure:
            raise self.failure


@pytest.fixture
def made(monkeypatch, settings):
    """A collector and its client of Kafka, with the configuration that the client was given."""
    configured: list[dict[str, object]] = []
    settings.KAFKA_BOOTSTRAP_SERVERS = "127.0.0.1:1"
    monkeypatch.setattr(collector, "close_old_connections", lambda: None)

    def make(*messages: object, failure: KafkaException | None = None) -> tuple[DeadLetterCollector, Polled]:
        polled = Polled(*messages, failure=failure)
        monkeypatch.setattr(collector, "Consumer", lambda config: configured.append(config) or polled)
        collecting = DeadLetterCollector(ORIGINS, heartbeat=Beats())
        collecting.configured = configured[-1]
        return collecting, polled

    return make


def test_the_collector_has_its_own_group(made):
    collecting, polled = made()
    assert collecting.configured.items() >= group_config("dead-letters").items()
    member = collecting._member
    assert (member._consumer, member._topics, member._heartbeat) == (polled, [TOPIC], collecting._heartbeat)


def test_the_collector_reads_at_most_one_chunk_and_waits_only_for_the_first_letter(made, monkeypatch):
    monkeypatch.setattr(collector, "as_incoming", lambda message: f"read {message}")
    monkeypatch.setattr(collector, "is_error_report", lambda message: message == 1)
    collecting, polled = made(*range(CHUNK + 2))
    assert collecting._next() == [f"read {n}" for n in range(CHUNK) if n != 1]
    assert polled.asked == [("poll", POLL), ("consume", CHUNK - 1, 0)]
    assert made()[0]._next() == []


@pytest.mark.parametrize(("fails", "is_stored"), [(0, True), (2, True), (9, False)])
def test_the_collector_retries_storing_after_a_pause_until_it_is_stopped(made, monkeypatch, fails, is_stored, caplog):
    caplog.set_level(logging.INFO)
    attempts, pauses = [], []

    def failing(stored, origins) -> None:
        attempts.append((stored, origins))
        if len(attempts) <= fails:
            raise OperationalError("the database\n is away")

    class Stop(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            pauses.append(timeout)
            return len(pauses) == 3

    monkeypatch.setattr(collector, "store_letters", failing)
    monkeypatch.setattr(collector, "growing_pauses", lambda *, first, most: iter([first, most] * 5))
    collecting, _ = made()
    assert collecting._keep([letter()], Stop()) is is_stored
    assert attempts == [([letter()], ORIGINS)] * min(fails + 1, 3)
    assert pauses == [0.5, 5.0, 0.5][: min(fails, 3)]
    assert collecting._heartbeat.beats == len(attempts)
    assert caplog.text.count("1 dead letters can't be stored yet: the database is away") == min(fails, 3)


def test_a_letter_that_can_never_be_stored_ends_the_process(made, monkeypatch):
    def broken(stored, origins) -> None:
        raise DataError("no")

    monkeypatch.setattr(collector, "store_letters", broken)
    with pytest.raises(DataError):
        made()[0]._keep([letter()], threading.Event())


def test_offsets_are_committed_at_once_and_a_passing_failure_is_logged(made, caplog):
    collecting, polled = made(failure=KafkaException(KafkaError(KafkaError._TIMED_OUT, "too slow")))
    collecting._commit()
    assert polled.asked == [("commit", False)]
    assert "offsets were not committed, so letters will be read again: too slow" in caplog.text
    fatal, _ = made(failure=KafkaException(KafkaError(KafkaError._FATAL, "gone", fatal=True)))
    with pytest.raises(KafkaException):
        fatal._commit()


def test_the_waiting_are_counted_every_few_seconds(made, monkeypatch):
    now = [0.5]
    monkeypatch.setattr(collector.time, "monotonic", lambda: now[0])
    collecting, _ = made()
    ids = kept(3)
    DeadLetter.objects.filter(pk=ids[0]).update(state=DeadLetter.State.REPLAYED)
    collecting._count_waiting()
    assert DEAD_LETTERS_WAITING._value.get() == 2
    DeadLetter.objects.filter(pk=ids[1]).update(state=DeadLetter.State.DISCARDED)
    now[0] += COUNTED_EVERY - 0.001
    collecting._count_waiting()
    assert DEAD_LETTERS_WAITING._value.get() == 2
    now[0] = 0.5 + COUNTED_EVERY
    collecting._count_waiting()
    assert DEAD_LETTERS_WAITING._value.get() == 1


@pytest.mark.parametrize(("error", "is_raised"), [(OperationalError("away"), False), (ValueError("a bug"), True)])
def test_the_count_is_unknown_while_the_database_is_down(made, monkeypatch, error, is_raised):
    def fail(**filters):
        raise error

    monkeypatch.setattr(DeadLetter.objects, "filter", fail)
    collecting, _ = made()
    try:
        collecting._count_waiting()
    except ValueError:
        assert is_raised
    else:
        assert not is_raised
    assert math.isnan(DEAD_LETTERS_WAITING._value.get())


@pytest.fixture
def client(monkeypatch, settings) -> RecordingClient:
    """The client of Kafka that a new collector gets."""
    settings.KAFKA_BOOTSTRAP_SERVERS, settings.KAFKA_PREFIX = "127.0.0.1:1", "own-"
    client = RecordingClient(clock := Clock())
    monkeypatch.setattr(collector, "Consumer", lambda config: client)
    monkeypatch.setattr(collector, "close_old_connections", lambda: None)
    monkeypatch.setattr(group_member, "time", clock)
    return client


def test_a_run_commits_after_the_letters_are_stored_and_leaves_the_group_at_its_end(client):
    stop, stored, heartbeat = threading.Event(), [], Beats()
    client.waiting = [FakeMessage(offset, topic=f"own-{TOPIC}") for offset in range(2)]
    client.when_idle = stop.set
    client.commit_result = lambda offsets: stored.append(DeadLetter.objects.count()) or offsets
    DeadLetterCollector(ORIGINS, heartbeat=heartbeat).run(stop)
    assert stored == [2]
    assert [name for name, *_ in client.calls] == ["subscribe", "poll", "consume", "commit", "poll", "close"]
    # Once in each turn of the loop, and once before the letters are stored.
    assert heartbeat.beats == 3


def test_letters_that_cannot_be_stored_before_a_stop_are_not_committed(client, monkeypatch):
    stop = threading.Event()

    def failing(stored, origins) -> None:
        stop.set()
        raise OperationalError("the database is away")

    monkeypatch.setattr(collector, "store_letters", failing)
    client.waiting = [FakeMessage(topic=f"own-{TOPIC}")]
    DeadLetterCollector(ORIGINS).run(stop)
    assert [name for name, *_ in client.calls] == ["subscribe", "poll", "consume", "close"]


def test_a_collector_without_an_assignment_joins_its_group_again(client):
    stop, idle = threading.Event(), []
    client.step = REJOINS_AFTER + 1
    client.when_idle = lambda: idle.append(1) or (len(idle) == 2 and stop.set())
    DeadLetterCollector(ORIGINS).run(stop)
    subscription = ("subscribe", f"own-{TOPIC}")
    assert client.calls == [
        subscription, ("poll", POLL), ("unsubscribe",), subscription, ("poll", POLL), ("close",),
    ]  # fmt: skip
