"""The steps of a BatchConsumer, each on its own. tests/contract/test_broker_conformance.py tests it in a group."""

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
from confluent_kafka import KafkaError, KafkaException

from eventbus.consumer import BatchConsumer
from eventbus.messages import HandledBatch, Handler, Incoming, Outgoing, Subscription
from runtime.errors import TransientError
from tests.broker import RecordingHandler, new_topic, put
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
    consumer._processor.subscription = replace(consumer.subscription, handle=handle)
    return consumer


# --- Attempts ----------------------------------------------------------------------------------------------------


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


def test_an_error_that_concerns_no_message_is_not_swallowed(consumer):
    def handle(batch: Sequence[Incoming]) -> HandledBatch:
        return HandledBatch(answers=[Outgoing("answers", 3, b"")])  # a key that is no key: a bug

    with pytest.raises(TypeError):
        with_handler(consumer, handle).work_through([incoming(0)], threading.Event())


# --- Retries ------------------------------------------------------------------------------------------------


def test_only_messages_of_partitions_still_held_are_tried_again(consumer):
    def handle(batch: Sequence[Incoming]) -> HandledBatch:
        tries.append([message.partition for message in batch])
        if len(tries) == 1:
            consumer._held.discard(("asked", 1))  # as if partition 1 is revoked meanwhile
            raise TransientError("away")
        return HandledBatch()

    tries: list[list[int]] = []
    batch = [incoming(0, partition=0), incoming(5, partition=1), incoming(9, partition=2)]
    consumer._held = {("asked", number) for number in range(3)}
    assert with_handler(consumer, handle).work_through(batch, threading.Event())
    assert tries == [[0, 1, 2], [0, 2]]
    consumer.note_done(batch)
    assert consumer._done == {("asked", 0): 1, ("asked", 2): 10}


def test_a_batch_whose_partitions_were_all_revoked_is_abandoned(consumer):
    def handle(batch: Sequence[Incoming]) -> HandledBatch:
        consumer._held.clear()
        raise TransientError("away")

    consumer._held = {("asked", 0)}
    assert not with_handler(consumer, handle).work_through([incoming(0)], threading.Event())


def test_the_pause_that_a_server_asks_for_is_honoured(consumer):
    def handle(batch: Sequence[Incoming]) -> HandledBatch:
        tries.append(time.monotonic())
        if len(tries) == 1:
            error = TransientError("too many requests")
            error.retry_after = 0.5
            raise error
        return HandledBatch()

    tries: list[float] = []
    consumer._held = {("asked", 0)}
    assert with_handler(consumer, handle).work_through([incoming(0)], threading.Event())
    first, second = tries
    assert second - first >= 0.5, "on its own it pauses for at most 0.1 s"


def test_a_stop_request_ends_the_retries_of_a_batch(consumer):
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
    others = [incoming(0, partition=3), incoming(8, partition=2)]
    consumer.note_done([incoming(4), incoming(6), told, incoming(5), *others])
    assert consumer._done == {("asked", 0): 7, ("asked", 3): 1, ("told", 0): 2}


def test_partitions_that_are_revoked_are_forgotten(consumer):
    consumer.join()
    eventually(lambda: consumer.next_batch() or consumer.partitions)
    first, second, *others = sorted(consumer.partitions)
    consumer._held, consumer._done = {first, second}, {first: 5, second: 5}
    consumer._on_revoke(consumer._consumer.assignment()[:1])
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
