"""The steps of a BatchConsumer, each alone. What it does in a group is in tests/contract/test_broker_conformance.py."""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

import pytest
from confluent_kafka import KafkaError, KafkaException

from eventbus import consumer as consumer_module
from eventbus.consumer import BatchConsumer
from eventbus.errors import BugError, DeliveryError, TooLargeError
from eventbus.messages import HandledBatch, Handler, Incoming, Outgoing, Subscription
from eventbus.producer import EventProducer
from runtime.errors import PermanentError, TransientError
from tests.broker import RecordingHandler, new_topic, put, read
from tests.waiting import eventually


def incoming(offset: int, value: bytes = b"good", partition: int = 0) -> Incoming:
    return Incoming(topic="asked", partition=partition, offset=offset, key=b"key", value=value)


@pytest.fixture
def consumer(embedded) -> Iterator[BatchConsumer]:
    yield from closing(RecordingHandler())


def closing(handle: Handler) -> Iterator[BatchConsumer]:
    consumer = BatchConsumer(Subscription(group="readers", topics=(new_topic(),), handle=handle))
    yield consumer
    consumer.close()


def with_handler(consumer: BatchConsumer, handle: Handler) -> BatchConsumer:
    consumer.subscription = replace(consumer.subscription, handle=handle)
    return consumer


def answering(batch: Sequence[Incoming], *, to: str = "answers") -> HandledBatch:
    """Answers each with its offset; poison in a batch makes all of it fail."""
    if any(message.value == b"poison" for message in batch):
        raise PermanentError("poison")
    return HandledBatch(answers=[Outgoing(to, "key", b"%d" % message.offset) for message in batch])


# --- One try ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("poisoned", [{0}, {6}, {2, 3}, set(range(7))], ids=str)
def test_of_a_batch_that_fails_only_what_fails_alone_is_rejected(consumer, poisoned):
    answers = new_topic()
    batch = [incoming(offset, b"poison" if offset in poisoned else b"good") for offset in range(7)]
    rejected = with_handler(consumer, partial(answering, to=answers)).handle(batch, {})
    assert [int(answer.value()) for answer in read(answers, 7 - len(poisoned))] == [
        n for n in range(7) if n not in poisoned
    ]
    assert [message.offset for message, _ in rejected] == sorted(poisoned)
    assert {type(error) for _, error in rejected} == {PermanentError}


def test_what_passes_by_itself_rejects_nothing_even_beside_poison(consumer):
    def handle(batch: Sequence[Incoming]) -> HandledBatch:
        if len(batch) == 1 and batch[0].value == b"good":
            raise TransientError("away")
        return answering(batch)

    with pytest.raises(TransientError):
        with_handler(consumer, handle).handle([incoming(0, b"poison"), incoming(1)], {})


def test_a_try_ends_when_answers_and_dead_letters_are_in_kafka(consumer):
    def handle(batch: Sequence[Incoming]) -> HandledBatch:
        return HandledBatch(answers=[Outgoing(answers, "key", b"yes")], rejected=[(batch[0], ValueError("no"))])

    answers = new_topic()
    with_handler(consumer, handle).process([incoming(0, b"odd")])
    assert [message.value() for message in read(answers, 1)] == [b"yes"]
    assert [message.value() for message in read("asked.readers.dlt", 1)] == [b"odd"]


def test_a_try_whose_answer_is_not_taken_fails(consumer, settings, monkeypatch):
    monkeypatch.setattr(consumer_module, "ACKNOWLEDGED_WITHIN", 0.2)
    settings.KAFKA_BOOTSTRAP_SERVERS = "127.0.0.1:1"
    monkeypatch.setattr(consumer, "_producer", away := EventProducer())
    with pytest.raises(DeliveryError):
        with_handler(consumer, answering).process([incoming(0)])
    away.close(0)


def test_a_message_whose_answer_is_too_large_is_rejected_alone(consumer):
    def handle(batch: Sequence[Incoming]) -> HandledBatch:
        return HandledBatch(answers=[Outgoing(answers, "key", message.value * 4) for message in batch])

    answers = new_topic()
    batch = [incoming(0, b"a"), incoming(1, bytes(500_000)), incoming(2, b"b")]
    [(message, error)] = with_handler(consumer, handle).handle(batch, {})
    assert message.offset == 1
    assert isinstance(error, TooLargeError)
    # The first was answered with the batch and again with its half, which is harmless.
    assert {answer.value() for answer in read(answers, 3)} == {b"aaaa", b"bbbb"}


# --- Bugs ---------------------------------------------------------------------------------------------------------


def buggy(batch: Sequence[Incoming]) -> HandledBatch:
    """A handler that fails, in a way that nobody foresaw, at each message that says so."""
    if any(message.value == b"bug" for message in batch):
        raise KeyError("bug")
    return HandledBatch()


def batch_of(values: str) -> list[Incoming]:
    """A letter for each message: b has the handler fail, g does not."""
    return [incoming(offset, {"b": b"bug", "g": b"good"}[value]) for offset, value in enumerate(values)]


def letters_of(consumer: BatchConsumer, monkeypatch: pytest.MonkeyPatch) -> list[Outgoing]:
    sent: list[Outgoing] = []
    monkeypatch.setattr(consumer._producer, "send_all", lambda messages, timeout: sent.extend(messages))
    return sent


@pytest.mark.parametrize("values", ["b" * 9, "bg" * 5, "b" * 5 + "g" * 5, "bbbbbbbbbg" + "g" * 8, "b" * 9 + "g" * 9])
def test_where_most_messages_succeed_those_that_fail_unexpectedly_are_put_aside(consumer, monkeypatch, values):
    sent = letters_of(consumer, monkeypatch)
    with_handler(consumer, buggy).process(batch_of(values))
    assert len(sent) == values.count("b")


@pytest.mark.parametrize("values", ["b" * 10, "bbbbbbgggg", "bg" * 5 + "b", "b" * 500])
def test_where_most_of_a_large_batch_fails_unexpectedly_nothing_is_put_aside(consumer, monkeypatch, values):
    sent = letters_of(consumer, monkeypatch)
    with pytest.raises(BugError) as caught:
        with_handler(consumer, buggy).process(batch_of(values))
    assert isinstance(caught.value.__cause__, KeyError)
    assert sent == []


def test_ten_failures_in_a_row_end_it_also_over_small_batches(consumer, monkeypatch):
    sent = letters_of(consumer, monkeypatch)
    with_handler(consumer, buggy)
    for values in ("gb", *["b"] * 8):
        consumer.process(batch_of(values))
    assert len(sent) == 9
    with pytest.raises(BugError, match="10 messages in a row"):
        consumer.process(batch_of("b"))
    assert len(sent) == 9


def test_one_success_begins_the_count_anew(consumer, monkeypatch):
    letters_of(consumer, monkeypatch)
    with_handler(consumer, buggy)
    for values in (*["b"] * 9, "g", *["b"] * 9):
        consumer.process(batch_of(values))


def test_messages_that_are_at_fault_themselves_are_no_bug(consumer, monkeypatch):
    sent = letters_of(consumer, monkeypatch)
    with_handler(consumer, answering).process([incoming(offset, b"poison") for offset in range(30)])
    assert len(sent) == 30


def test_handlers_run_on_one_thread_which_is_not_the_one_that_polls(consumer):
    def handle(batch: Sequence[Incoming]) -> HandledBatch:
        threads.append(threading.get_ident())
        return HandledBatch()

    threads: list[int] = []
    with_handler(consumer, handle)
    consumer._held = {("asked", 0)}
    assert consumer.work_through([incoming(0)], threading.Event())
    assert consumer.work_through([incoming(1)], threading.Event())
    assert threads[0] == threads[1] != threading.get_ident()


def test_an_error_that_is_nobody_s_message_is_not_swallowed(consumer):
    def handle(batch: Sequence[Incoming]) -> HandledBatch:
        return HandledBatch(answers=[Outgoing("answers", 3, b"")])  # a key that is no key: a bug

    with pytest.raises(TypeError):
        with_handler(consumer, handle).work_through([incoming(0)], threading.Event())


# --- What is tried again ----------------------------------------------------------------------------------------


def test_only_what_is_still_held_is_tried_again(consumer):
    def handle(batch: Sequence[Incoming]) -> HandledBatch:
        tries.append([message.partition for message in batch])
        if len(tries) == 1:
            consumer._held.discard(("asked", 1))  # as when partition 1 is revoked meanwhile
            raise TransientError("away")
        return HandledBatch()

    tries: list[list[int]] = []
    batch = [incoming(0, partition=0), incoming(5, partition=1), incoming(9, partition=2)]
    consumer._held = {("asked", number) for number in range(3)}
    assert with_handler(consumer, handle).work_through(batch, threading.Event())
    assert tries == [[0, 1, 2], [0, 2]]
    consumer.note_done(batch)
    assert consumer._done == {("asked", 0): 1, ("asked", 2): 10}


def test_a_batch_of_which_nothing_is_held_any_more_is_given_up(consumer):
    def handle(batch: Sequence[Incoming]) -> HandledBatch:
        consumer._held.clear()
        raise TransientError("away")

    consumer._held = {("asked", 0)}
    assert not with_handler(consumer, handle).work_through([incoming(0)], threading.Event())


def test_a_stop_request_gives_up_what_would_be_tried_again(consumer):
    stop = threading.Event()

    def handle(batch: Sequence[Incoming]) -> HandledBatch:
        stop.set()
        raise TransientError("away")

    consumer._held = {("asked", 0)}
    assert not with_handler(consumer, handle).work_through([incoming(0)], stop)


# --- Offsets ----------------------------------------------------------------------------------------------------


def test_the_offset_is_the_one_after_the_last_and_one_for_each_partition_of_each_topic(consumer):
    consumer._held = {("asked", 0), ("asked", 3), ("told", 0)}
    told = replace(incoming(1), topic="told")
    consumer.note_done(
        [incoming(4), incoming(6), told, incoming(5), incoming(0, partition=3), incoming(8, partition=2)]
    )
    assert consumer._done == {("asked", 0): 7, ("asked", 3): 1, ("told", 0): 2}


def test_partitions_that_are_revoked_are_forgotten(consumer):
    consumer.join()
    eventually(lambda: consumer.next_batch() or consumer.partitions)
    first, second, *others = sorted(consumer.partitions)
    consumer._held, consumer._done = {first, second}, {first: 5, second: 5}
    consumer._on_revoke(consumer._consumer, consumer._consumer.assignment()[:1])
    assert (consumer._held, consumer._done, consumer.partitions) == ({second}, {second: 5}, {second, *others})


@pytest.mark.parametrize(
    "code",
    [KafkaError.ILLEGAL_GENERATION, KafkaError.UNKNOWN_MEMBER_ID, KafkaError.REBALANCE_IN_PROGRESS],
)
def test_an_offset_that_is_not_ours_to_commit_is_forgotten(consumer, code, caplog):
    consumer._done = {("asked", 0): 5, ("told", 0): 5}
    consumer._note_commit(("asked", 0), KafkaError(code))
    assert consumer._done == {("told", 0): 5}
    assert "the offset of asked[0] was not committed" in caplog.text


def test_an_offset_that_can_t_be_committed_now_is_kept(consumer):
    consumer._done = {("asked", 0): 5}
    consumer._note_commit(("asked", 0), KafkaError(KafkaError.NOT_COORDINATOR))
    assert consumer._done == {("asked", 0): 5}


def test_an_offset_that_can_never_be_committed_ends_the_consumer(consumer):
    consumer._done = {("asked", 0): 5}
    with pytest.raises(KafkaException, match="authoriz"):
        consumer._note_commit(("asked", 0), KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED))


# --- While a batch is in hand -----------------------------------------------------------------------------------


def test_a_message_that_comes_while_a_batch_is_in_hand_is_read_again(consumer):
    consumer.join()
    put(consumer.subscription.topics[0], b"early", partition=0)
    eventually(lambda: consumer.next_batch())
    put(consumer.subscription.topics[0], b"1", b"2", b"3", partition=0)
    # As if the client took no notice of being paused.
    consumer._is_paused, consumer._polls_from = True, 0.0
    for _ in range(10):
        consumer._stand_by(threading.Event().wait)
    consumer._is_paused = False
    messages: list[bytes | None] = []
    eventually(lambda: messages.extend(message.value for message in consumer.next_batch()) or len(messages) == 3)
    assert messages == [b"1", b"2", b"3"]


def test_partitions_that_come_while_a_batch_is_in_hand_wait_until_it_is_done(consumer):
    put(consumer.subscription.topics[0], b"waits", partition=0)
    consumer._polls_from = 0.0
    consumer.join()
    consumer._pause()
    eventually(lambda: consumer._stand_by(threading.Event().wait) or consumer.partitions)
    for _ in range(5):
        assert consumer._consumer.poll(0.05) is None
    consumer._resume()
    assert [message.value for message in eventually(consumer.next_batch)] == [b"waits"]
