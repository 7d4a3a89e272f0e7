"""The guarantees of `eventbus`, on the embedded broker and on Apache Kafka alike."""

import logging
import secrets
import threading
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count

import pytest
from confluent_kafka import Consumer, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient
from django.conf import settings

from eventbus import batch_processor, group_member
from eventbus import consumer as consumer_module
from eventbus.consumer import BatchConsumer
from eventbus.errors import BugError, DeliveryError
from eventbus.inspection.lag import LagReader
from eventbus.messages import HandledBatch, Handler, Incoming, Outgoing, Subscription
from eventbus.producer import EventProducer
from eventbus.topics import MESSAGE_MAX, TopicError, add_partitions, dead_letter_topic, ensure_topics
from runtime.errors import PermanentError, TransientError
from tests.broker import (
    PARTITIONS,
    RecordingHandler,
    RunningConsumer,
    break_for_good,
    committed,
    consuming,
    let_take,
    new_topic,
    put,
    put_with_unreadable_header,
    read,
    read_all,
    skip_to_the_end,
)
from tests.servers import KafkaServer
from tests.waiting import PATIENCE, eventually

pytestmark = pytest.mark.needs("broker")
# Bytes of a value that Kafka takes by its default, with a key and some headers.
LARGEST = MESSAGE_MAX - 1_000
needs_kafka = pytest.mark.needs("kafka")


def new_subscription(handle: Handler) -> Subscription:
    subscription = Subscription(group=f"group-{secrets.token_hex(6)}", topics=(new_topic(),), handle=handle)
    ensure_topics(subscription.every_topic)
    return subscription


def places(messages: Sequence[Incoming]) -> dict[int, int]:
    """The offset from which a group continues after these messages."""
    return {message.partition: message.offset + 1 for message in sorted(messages, key=lambda each: each.offset)}


def numbered(count: int) -> list[bytes]:
    return [b"%d" % number for number in range(count)]


# --- Publishing -------------------------------------------------------------------------------------------------


@pytest.fixture
def producer():
    producer = EventProducer()
    yield producer
    producer.close(1)


def test_an_acknowledged_message_is_in_the_topic_unchanged(producer):
    topic = new_topic()
    headers = (("ce_id", b"1"), ("ce_id", b"2"), ("nothing", None))
    producer.send_all([Outgoing(topic, "김", b"\x00value", headers), Outgoing(topic, None, None)], timeout=10)
    first, second = sorted(read(topic, 2), key=lambda message: message.value() is None)
    assert (first.key(), first.value(), first.headers()) == ("김".encode(), b"\x00value", list(headers))
    assert (second.key(), second.value(), second.headers()) == (None, None, None)


def test_a_key_gets_the_same_partition_as_with_javas_client(producer):
    """Numbers from Kafka's own test of its murmur2, modulo 4 partitions."""
    topic = new_topic()
    hashes = {"21": -973932308, "foobar": -790332482, "a-little-bit-long-string": -985981536}
    producer.send_all([Outgoing(topic, key, b"") for key in hashes], timeout=10)
    partitions = {message.key().decode(): message.partition() for message in read(topic, len(hashes))}
    assert partitions == {key: (hash_ & 0x7FFFFFFF) % 4 for key, hash_ in hashes.items()}


def test_sent_messages_keep_the_order_of_their_key(producer):
    topic = new_topic()
    assert all(producer.send(Outgoing(topic, "key", value)) for value in numbered(1000))
    assert [message.value() for message in read(topic, 1000)] == numbered(1000)
    assert producer.lost == 0


def test_a_message_that_is_too_large_is_a_delivery_error(producer):
    topic = new_topic()
    too_large = Outgoing(topic, "key", bytes(2_000_000))
    assert not producer.send(too_large)
    assert producer.lost == 1
    with pytest.raises(DeliveryError, match="too large") as raised:
        producer.send_all([Outgoing(topic, "key", b"good"), too_large], timeout=10)
    assert too_large in raised.value.failed


def test_a_producer_with_a_fatal_error_is_replaced(producer):
    topic = new_topic()
    assert producer.send(Outgoing(topic, "key", b"before"))
    read(topic, 1)
    break_for_good(producer._producer)
    assert producer.send(Outgoing(topic, "key", b"after"))
    assert [message.value() for message in read(topic, 2)] == [b"before", b"after"]
    producer.send_all([Outgoing(topic, "key", b"last")], timeout=10)


# --- Offsets follow the work ------------------------------------------------------------------------------------


def test_a_new_group_reads_existing_messages_and_commits_the_offset_after_the_last():
    handler = RecordingHandler()
    subscription = new_subscription(handler)
    put(subscription.topics[0], *numbered(50), trace=b"1")
    with consuming(subscription):
        eventually(lambda: len(handler.handled) == 50)
        put(subscription.topics[0], b"later", key="key")
        eventually(lambda: committed(subscription) == places(handler.handled) and len(handler.handled) == 51)
    assert sorted(handler.values) == sorted([*numbered(50), b"later"])
    assert handler.handled[0].headers == (("trace", b"1"),)
    assert handler.handled[0].topic == subscription.topics[0]
    assert handler.handled[0].timestamp_ms > 1_600_000_000_000


def test_nothing_is_committed_before_the_work_is_done():
    seen: list[dict[int, int]] = []

    def handle(batch: Sequence[Incoming]) -> HandledBatch:
        seen.append(committed(subscription))
        return HandledBatch()

    subscription = new_subscription(handle)
    with consuming(subscription):
        put(subscription.topics[0], b"first", partition=2)
        eventually(lambda: committed(subscription) == {2: 1})
        put(subscription.topics[0], b"second", partition=2)
        eventually(lambda: committed(subscription) == {2: 2})
    assert seen == [{}, {2: 1}]


def test_offsets_are_committed_while_messages_keep_coming(monkeypatch):
    # Continuous traffic, so that no pause between two messages triggers the commit.
    monkeypatch.setattr(consumer_module, "IDLE", 2.0)
    subscription = new_subscription(RecordingHandler())
    ended = threading.Event()

    def keep_putting() -> None:
        while not ended.wait(0.02):
            put(subscription.topics[0], b"one more")

    putting = threading.Thread(target=keep_putting)
    with consuming(subscription):
        putting.start()
        try:
            eventually(lambda: sum(committed(subscription).values()) > 0)
        finally:
            ended.set()
            putting.join()


def test_offsets_are_not_committed_while_kafka_refuses_the_answers(monkeypatch):
    def handle(batch: Sequence[Incoming]) -> HandledBatch:
        seen.append(committed(subscription))
        return HandledBatch(answers=[Outgoing(answers_topic, "key", b"good")])

    def send_all_at_last(messages: Sequence[Outgoing], *, timeout: float) -> None:
        if len(seen) == 1:
            raise DeliveryError(messages, "no answer in time")
        send_all(messages, timeout=timeout)

    seen: list[dict[int, int]] = []
    answers_topic = new_topic()
    subscription = new_subscription(handle)
    with consuming(subscription) as running:
        send_all = running.consumer._producer.send_all
        monkeypatch.setattr(running.consumer._producer, "send_all", send_all_at_last)
        put(subscription.topics[0], b"question")
        eventually(lambda: sum(committed(subscription).values()) == 1)
    assert seen == [{}, {}]
    assert [message.value() for message in read(answers_topic, 1)] == [b"good"]


def test_a_transient_failure_repeats_the_batch_until_it_works():
    handler = RecordingHandler(TransientError("away"), ConnectionError("still away"), TimeoutError("back soon"))
    subscription = new_subscription(handler)
    put(subscription.topics[0], *numbered(3), partition=1)
    with consuming(subscription):
        eventually(lambda: committed(subscription) == {1: 3})
    assert handler.values == numbered(3)
    assert [[message.value for message in batch] for batch in handler.tries] == [numbered(3)] * 4


def test_prefetched_messages_are_neither_lost_nor_repeated_by_a_pause(monkeypatch):
    monkeypatch.setattr(consumer_module, "UNPOLLED", 0.0)
    monkeypatch.setattr(settings, "KAFKA_BATCH_SIZE", 100)
    handler = RecordingHandler(None, TransientError("away"), None, None, TransientError("away"))
    subscription = new_subscription(handler)
    put(subscription.topics[0], *numbered(400))
    with consuming(subscription):
        eventually(lambda: len(handler.handled) >= 400)
        eventually(lambda: committed(subscription) == places(handler.handled))
    assert max(len(batch) for batch in handler.batches) == 100
    by_partition: dict[int, list[int]] = defaultdict(list)
    for message in handler.handled:
        by_partition[message.partition].append(message.offset)
    assert all(offsets == list(range(len(offsets))) for offsets in by_partition.values())
    assert len(handler.handled) == 400


def test_a_stop_ends_the_retries_and_the_next_reader_gets_the_batch():
    handler = RecordingHandler(*[TransientError("away")] * 100)
    subscription = new_subscription(handler)
    put(subscription.topics[0], b"waits", partition=0)
    with consuming(subscription) as running:
        eventually(lambda: len(handler.tries) >= 3)
        assert running.stop() < 15, "it would be tried for minutes"
    assert committed(subscription) == {}
    handler.failures.clear()
    with consuming(subscription):
        eventually(lambda: committed(subscription) == {0: 1})
    assert handler.values == [b"waits"]


def test_a_handled_but_uncommitted_batch_is_read_again():
    """As after a kill: this reader never commits."""
    handler = RecordingHandler()
    subscription = new_subscription(handler)
    put(subscription.topics[0], *numbered(5), partition=3)
    consumer = BatchConsumer(subscription)
    try:
        consumer.join()
        batch = eventually(consumer.next_batch)
        assert consumer.work_through(batch, threading.Event())
    finally:
        consumer.close()
    with consuming(subscription):
        eventually(lambda: committed(subscription) == {3: 5})
    assert handler.values == numbered(5) * 2


def test_a_subscription_may_ask_for_smaller_batches():
    handler = RecordingHandler()
    subscription = replace(new_subscription(handler), batch=2)
    put(subscription.topics[0], *numbered(9), partition=0)
    with consuming(subscription):
        eventually(lambda: handler.values == numbered(9))
    assert max(len(each) for each in handler.tries) == 2


@pytest.mark.parametrize("most", [500, 1])
def test_a_subscription_that_gathers_messages_waits_for_a_second_one(settings, monkeypatch, most):
    class Reporting(Consumer):
        def poll(self, timeout: float) -> Message | None:
            if (message := super().poll(timeout)) is not None:
                has_read.set()
            return message

    has_read = threading.Event()
    monkeypatch.setattr(consumer_module, "Consumer", Reporting)
    settings.KAFKA_BATCH_SIZE = most
    handler = RecordingHandler()
    subscription = replace(new_subscription(handler), gathers=PATIENCE / 3)
    with consuming(subscription):
        put(subscription.topics[0], b"first", partition=0)
        assert has_read.wait(PATIENCE)
        if most > 1:
            assert handler.tries == [], "the first alone"
        put(subscription.topics[0], b"second", partition=0)
        eventually(lambda: len(handler.handled) == 2)
    assert [len(each) for each in handler.tries] == ([2] if most > 1 else [1, 1])


def test_a_stuck_handler_does_not_keep_a_consumer_from_stopping():
    stuck = threading.Event()

    def handle(batch: Sequence[Incoming]) -> HandledBatch:
        stuck.wait(120)
        return HandledBatch()

    subscription = new_subscription(handle)
    put(subscription.topics[0], b"heavy")
    with consuming(subscription) as running:
        eventually(lambda: running.consumer._held)
        assert running.stop() < 15
    stuck.set()
    assert committed(subscription) == {}


# --- Poison -----------------------------------------------------------------------------------------------------


def test_poison_goes_to_the_dead_letters_and_the_rest_continues():
    def handle(batch: Sequence[Incoming]) -> HandledBatch:
        if any(message.value == b"poison" for message in batch):
            raise ValueError("can't be eaten")
        return handler(batch)

    handler = RecordingHandler()
    subscription = new_subscription(handle)
    put(subscription.topics[0], *numbered(5), b"poison", *numbered(5), key="key", partition=2, trace=b"1", empty=None)
    with consuming(subscription):
        eventually(lambda: committed(subscription) == {2: 11})
    assert handler.values == numbered(5) * 2
    (letter,) = read(dead_letter_topic(subscription.topics[0], subscription.group), 1)
    headers = dict(letter.headers())
    assert (letter.key(), letter.value()) == (b"key", b"poison")
    assert (headers["trace"], headers["empty"]) == (b"1", None)
    assert (headers["dlt-partition"], headers["dlt-offset"]) == (b"2", b"5")
    assert headers["dlt-topic"].decode() == settings.KAFKA_PREFIX + subscription.topics[0]
    assert headers["dlt-group"].decode() == settings.KAFKA_PREFIX + subscription.group
    assert (headers["dlt-error"], headers["dlt-message"]) == (b"builtins.ValueError", b"can't be eaten")


def test_a_handler_with_a_bug_ends_its_consumer_before_it_drains_the_topic():
    def handle(batch: Sequence[Incoming]) -> HandledBatch:
        raise KeyError("a bug of this release")

    subscription = new_subscription(handle)
    put(subscription.topics[0], *numbered(100), partition=2)
    with pytest.raises(BugError), consuming(subscription) as running:
        eventually(lambda: not running.is_running)
    # The first batch may have been too small to blame the handler.
    assert committed(subscription).get(2, 0) < batch_processor.BUG_IN_A_ROW
    assert len(read_all(dead_letter_topic(subscription.topics[0], subscription.group))) < batch_processor.BUG_IN_A_ROW


def test_a_header_name_that_is_not_utf_8_blocks_no_other_message():
    handler = RecordingHandler()
    subscription = new_subscription(handler)
    # Many messages come before it, because the interpreter specialises frequent calls and then makes fewer checks.
    put(subscription.topics[0], *numbered(50), partition=0)
    put_with_unreadable_header(subscription.topics[0], b"odd")
    put(subscription.topics[0], b"next", partition=0)
    with consuming(subscription):
        eventually(lambda: committed(subscription) == {0: 52})
    assert handler.values == [*numbered(50), b"odd", b"next"]


def test_the_largest_message_fits_among_the_dead_letters():
    def handle(batch: Sequence[Incoming]) -> HandledBatch:
        return HandledBatch(rejected=[(message, ValueError("too much")) for message in batch])

    subscription = new_subscription(handle)
    put(subscription.topics[0], bytes(LARGEST))
    with consuming(subscription):
        (letter,) = read(dead_letter_topic(subscription.topics[0], subscription.group), 1)
    assert letter.value() == bytes(LARGEST)
    assert "dlt-value-bytes" not in dict(letter.headers())


@needs_kafka
def test_a_dead_letter_is_truncated_if_its_topic_has_the_default_size_limit():
    def handle(batch: Sequence[Incoming]) -> HandledBatch:
        return HandledBatch(rejected=[(message, ValueError("too much")) for message in batch])

    subscription = new_subscription(handle)
    letters = dead_letter_topic(subscription.topics[0], subscription.group)
    let_take(letters, 1_000_000)
    put(subscription.topics[0], b"small", bytes(LARGEST), key="key", partition=1)
    with consuming(subscription):
        small, large = read(letters, 2)
    assert (small.value(), large.value()) == (b"small", bytes(900_000))
    assert dict(large.headers())["dlt-value-bytes"] == b"%d" % LARGEST


@needs_kafka
def test_a_topic_with_the_default_size_limit_refuses_a_message_of_5_mb():
    topic = new_topic()
    with pytest.raises(AssertionError, match="MSG_SIZE_TOO_LARGE"):
        put(topic, bytes(5_000_000))


@needs_kafka
def test_a_message_of_5_mb_blocks_no_other_message_and_its_beginning_is_dead_lettered():
    def handle(batch: Sequence[Incoming]) -> HandledBatch:
        too_long = [message for message in batch if len(message.value or b"") > 1_000_000]
        handler([message for message in batch if message not in too_long])
        return HandledBatch(rejected=[(message, ValueError("too long")) for message in too_long])

    handler = RecordingHandler()
    subscription = new_subscription(handle)
    let_take(subscription.topics[0], 6_000_000)
    eventually(lambda: put(subscription.topics[0], b"1", bytes(5_000_000), b"2", key="key", partition=1) is None)
    with consuming(subscription):
        eventually(lambda: committed(subscription) == {1: 3})
    assert handler.values == [b"1", b"2"]
    (letter,) = read(dead_letter_topic(subscription.topics[0], subscription.group), 1)
    assert letter.value() == bytes(900_000)
    assert dict(letter.headers())["dlt-value-bytes"] == b"5000000"


def test_the_request_of_an_answer_that_is_too_large_for_any_topic_is_dead_lettered():
    assert_put_aside_for_its_answer(2_000_000)


@needs_kafka
def test_the_request_of_an_answer_that_is_too_large_for_its_topic_is_dead_lettered():
    assert_put_aside_for_its_answer(500_000, topic_takes=100_000)


def assert_put_aside_for_its_answer(size: int, *, topic_takes: int = 0) -> None:
    """Check that of a batch of requests, only the one whose answer has `size` bytes is dead-lettered."""

    def handle(batch: Sequence[Incoming]) -> HandledBatch:
        answer = {b"long": bytes(size)}
        return HandledBatch(
            answers=[Outgoing(answers, "key", answer.get(each.value or b"", each.value)) for each in batch]
        )

    answers = new_topic()
    subscription = new_subscription(handle)
    if topic_takes:
        let_take(answers, topic_takes)
    put(subscription.topics[0], *numbered(5), b"long", *numbered(5), partition=3)
    with consuming(subscription):
        eventually(lambda: committed(subscription) == {3: 11})
    (letter,) = read(dead_letter_topic(subscription.topics[0], subscription.group), 1)
    assert letter.value() == b"long"
    assert dict(letter.headers())["dlt-error"] == b"eventbus.errors.TooLargeError"
    assert {answer.value() for answer in read(answers, 10)} <= set(numbered(5))


@needs_kafka
@pytest.mark.parametrize("ahead", [timedelta(days=1), timedelta(days=-1)], ids=str)
def test_a_message_of_a_sender_with_a_wrong_clock_is_handled_and_dated_by_kafkas_clock(ahead):
    handler = RecordingHandler()
    subscription = new_subscription(handler)
    now = datetime.now(UTC)
    put(subscription.topics[0], b"out of time", timestamp_ms=int((now + ahead).timestamp() * 1000))
    with consuming(subscription):
        eventually(lambda: handler.values == [b"out of time"])
    assert abs(handler.handled[0].timestamp_ms / 1000 - now.timestamp()) < 60


# --- Several topics ---------------------------------------------------------------------------------------------


def one_topic(subscription: Subscription, topic: str) -> Subscription:
    """The same group with one of its topics, for `committed`."""
    return replace(subscription, topics=(topic,))


def test_a_group_reads_several_topics_and_continues_in_each_where_it_was():
    """Both topics have messages in the partition of the same number, at different offsets."""
    one, other = new_topic(), new_topic()
    handler = RecordingHandler()
    subscription = Subscription(group=f"group-{secrets.token_hex(6)}", topics=(one, other), handle=handler)
    ensure_topics(subscription.every_topic)
    put(one, b"a", b"b", b"c", partition=0)
    put(other, b"x", partition=0)
    put(other, b"y", partition=2)
    with consuming(subscription):
        eventually(lambda: len(handler.handled) >= 5)
        eventually(lambda: committed(one_topic(subscription, one)) == {0: 3})
        eventually(lambda: committed(one_topic(subscription, other)) == {0: 1, 2: 1})
    assert sorted((message.topic == one, message.value) for message in handler.handled) == [
        (False, b"x"), (False, b"y"), (True, b"a"), (True, b"b"), (True, b"c"),
    ]  # fmt: skip

    put(other, b"later", partition=0)
    with consuming(subscription):
        eventually(lambda: handler.values[5:] == [b"later"])
        eventually(lambda: committed(one_topic(subscription, other)) == {0: 2, 2: 1})


def test_poison_messages_go_to_the_dead_letter_topics_of_their_own_topics():
    def handle(batch: Sequence[Incoming]) -> HandledBatch:
        rejected = [(message, PermanentError("poison")) for message in batch if message.value == b"poison"]
        return HandledBatch(rejected=rejected)

    one, other = new_topic(), new_topic()
    subscription = Subscription(group=f"group-{secrets.token_hex(6)}", topics=(one, other), handle=handle)
    ensure_topics(subscription.every_topic)
    put(one, b"good", partition=1)
    put(other, b"good", b"poison", partition=1)
    with consuming(subscription):
        [letter] = read(dead_letter_topic(other, subscription.group), 1)
        eventually(lambda: committed(one_topic(subscription, one)) == {1: 1})
        eventually(lambda: committed(one_topic(subscription, other)) == {1: 2})
    assert dict(letter.headers())["dlt-offset"] == b"1"
    assert read_all(dead_letter_topic(one, subscription.group)) == []


def test_a_member_that_loses_one_topics_partition_keeps_its_work_on_the_other():
    one, other = new_topic(), new_topic()
    handler = RecordingHandler()
    subscription = Subscription(group=f"group-{secrets.token_hex(6)}", topics=(one, other), handle=handler)
    ensure_topics(subscription.every_topic)
    put(one, b"a", partition=0)
    put(other, b"x", partition=0)
    consumer = BatchConsumer(subscription)
    try:
        consumer.join()
        batch: list[Incoming] = []
        eventually(lambda: batch.extend(consumer.next_batch()) or len(batch) == 2)
        consumer._held = {(one, 0), (other, 0)}
        consumer.note_done(batch)
        consumer._on_revoke([TopicPartition(settings.KAFKA_PREFIX + one, 0)])
        consumer.commit_done()
    finally:
        consumer.close()
    assert committed(one_topic(subscription, one)) == {}
    assert committed(one_topic(subscription, other)) == {0: 1}


# --- Groups -----------------------------------------------------------------------------------------------------


def test_the_readers_of_a_group_share_its_partitions_and_one_takes_over():
    handler, other_handler = RecordingHandler(), RecordingHandler()
    subscription = new_subscription(handler)
    other = Subscription(group=subscription.group, topics=subscription.topics, handle=other_handler)
    with consuming(subscription) as first:
        with consuming(other) as second:
            puts = count()

            def both_have_read() -> bool:
                # Repeat, because the embedded broker may rebalance once more after each reader has its share.
                eventually(lambda: (len(first.partitions), len(second.partitions)) == (2, 2))
                put(subscription.topics[0], *numbered(100))
                next(puts)
                return bool(handler.handled and other_handler.handled)

            eventually(both_have_read, 90)
        eventually(lambda: len(first.partitions) == 4)
        put(subscription.topics[0], *numbered(100))
        total = 100 * (next(puts) + 1)
        eventually(lambda: sum(committed(subscription).values()) == total)
    assert len(handler.handled) + len(other_handler.handled) >= total


def test_a_batch_commits_nothing_for_partitions_that_were_revoked_meanwhile():
    """The first reader repeats its batch while a second joins: the second commits only its own."""
    handler = RecordingHandler(*[TransientError("away")] * 1000)
    other_handler = RecordingHandler()
    subscription = new_subscription(handler)
    other = Subscription(group=subscription.group, topics=subscription.topics, handle=other_handler)
    for partition in range(4):
        put(subscription.topics[0], *numbered(10), partition=partition)
    with consuming(subscription) as first:
        eventually(lambda: handler.tries and first.consumer._held)
        with consuming(other) as second:
            eventually(lambda: (len(first.partitions), len(second.partitions)) == (2, 2))
            others = set(second.partitions)
            eventually(lambda: committed(subscription) == dict.fromkeys(others, 10))
            handler.failures.clear()
            eventually(lambda: committed(subscription) == dict.fromkeys(range(4), 10))
    assert {message.partition for message in other_handler.handled} == others
    assert {message.partition for message in handler.handled} == set(range(4)) - others


def test_partitions_that_were_revoked_while_paused_are_not_paused_when_reassigned():
    """The current batch is abandoned between the revocation and the next assignment."""
    subscription = new_subscription(RecordingHandler())
    consumer = BatchConsumer(subscription)
    try:
        consumer.join()
        eventually(lambda: consumer.next_batch() or consumer.partitions)
        consumer._polls_from = 0.0
        second = RunningConsumer(subscription)
        try:
            eventually(lambda: consumer._stand_by(threading.Event().wait) or len(consumer.partitions) < 4)
            consumer._resume()
            eventually(lambda: consumer.next_batch() or consumer.partitions)
            for _, partition in consumer.partitions:
                put(subscription.topics[0], b"to be read", partition=partition)
            read_from: set[int] = set()
            eventually(lambda: read_from.update(m.partition for m in consumer.next_batch()) or len(read_from) == 2)
        finally:
            second.stop()
    finally:
        consumer.close()


def test_a_slow_handler_does_not_cost_the_membership(monkeypatch, caplog):
    caplog.set_level(logging.INFO, "eventbus")
    # Joining takes 3.5 s on the embedded broker; a member must survive that.
    interval = 5 if settings.KAFKA_EMBEDDED else 2
    short = {
        "session.timeout.ms": interval * 1000,
        "max.poll.interval.ms": interval * 1000,
        "heartbeat.interval.ms": 500,
    }
    monkeypatch.setattr(settings, "KAFKA_CLIENT_CONFIG", short)
    release = threading.Event()

    def handle(batch: Sequence[Incoming]) -> HandledBatch:
        release.wait(90)
        return handler(batch)

    handler = RecordingHandler()
    subscription = new_subscription(handle)
    put(subscription.topics[0], b"heavy", partition=1)
    with consuming(subscription) as running:
        # Three times the interval after which a reader that does not poll is evicted.
        timer = threading.Timer(3 * interval + 0.5, release.set)
        timer.start()
        eventually(lambda: committed(subscription) == {1: 1}, 60)
        timer.join()
        assert running.partitions == set(range(4))
    assert handler.values == [b"heavy"]
    assert sum("revoked partitions" in record.getMessage() for record in caplog.records) == 1  # when it stopped


def test_a_consumer_that_was_removed_from_its_group_commits_nothing_and_rejoins(monkeypatch, caplog):
    monkeypatch.setattr(settings, "KAFKA_CLIENT_CONFIG", {"max.poll.interval.ms": 6000})
    handler = RecordingHandler()
    subscription = new_subscription(handler)
    put(subscription.topics[0], b"again", partition=0)
    late = BatchConsumer(subscription)
    try:
        late.join()
        batch = eventually(late.next_batch)
        with consuming(subscription):
            # `late` is not polled, so the other reader gets its partitions after the interval.
            eventually(lambda: committed(subscription) == {0: 1})
            put(subscription.topics[0], b"newer", partition=0)
            eventually(lambda: committed(subscription) == {0: 2})
            late.note_done(batch)
            late.commit_done()
            assert committed(subscription) == {0: 2}
            assert f"the offset of {subscription.topics[0]}[0] was not committed" in caplog.text
            eventually(lambda: late.next_batch() or late.partitions, what="partitions again")
    finally:
        late.close()


def test_a_commit_that_fails_is_kept_and_repeated(caplog):
    subscription = new_subscription(RecordingHandler())
    put(subscription.topics[0], b"here", partition=0)
    consumer = BatchConsumer(subscription)
    try:
        consumer.join()
        batch = eventually(consumer.next_batch)
        [topic] = subscription.topics
        consumer._held.add((topic, 99))
        consumer.note_done([*batch, Incoming(topic, 99, 4, None, None)])
        consumer.commit_done()
        assert consumer._done == {(topic, 0): 1, (topic, 99): 5}
        assert f"the offset of {topic}[99] was not committed" in caplog.text
        del consumer._done[topic, 99]
        consumer.commit_done()
        assert consumer._done == {}
    finally:
        consumer.close()
    assert committed(subscription) == {0: 1}


# --- Topics, which the embedded broker makes by itself ----------------------------------------------------------


@needs_kafka
def test_missing_topics_are_created(monkeypatch):
    monkeypatch.setattr(settings, "KAFKA_PREFIX", f"prefix-{secrets.token_hex(4)}-")
    monkeypatch.setattr(settings, "KAFKA_PARTITIONS", 3)
    ensure_topics(["one", "two"])
    ensure_topics(["two", "three"])
    there = AdminClient({"bootstrap.servers": settings.KAFKA_BOOTSTRAP_SERVERS}).list_topics(timeout=10).topics
    assert {name: len(topic.partitions) for name, topic in there.items() if name.startswith(settings.KAFKA_PREFIX)} == {
        settings.KAFKA_PREFIX + name: 3 for name in ("one", "two", "three")
    }


@needs_kafka
def test_partitions_that_are_added_to_a_topic_are_read_soon(monkeypatch):
    """Not after the five minutes of librdkafka's default, during which the lights of half the sign-ups would wait."""
    subscription = new_subscription(handler := RecordingHandler())
    [topic] = subscription.topics
    with consuming(subscription):
        put(topic, b"before", partition=0)
        eventually(lambda: handler.values == [b"before"])
        monkeypatch.setattr(settings, "KAFKA_PARTITIONS", 2 * PARTITIONS)
        assert add_partitions([topic, "unknown"]) == [topic]
        eventually(lambda: put(topic, b"added", partition=2 * PARTITIONS - 1) is None)
        eventually(lambda: handler.values == [b"before", b"added"])


@needs_kafka
@pytest.mark.parametrize("wanted", [PARTITIONS - 1, PARTITIONS])
def test_a_topic_that_has_as_many_partitions_or_more_keeps_them(wanted, monkeypatch):
    topic = new_topic()
    monkeypatch.setattr(settings, "KAFKA_PARTITIONS", wanted)
    assert add_partitions([topic]) == []
    with pytest.raises(AssertionError):
        put(topic, b"none", partition=PARTITIONS)


@needs_kafka
def test_a_topic_that_kafka_refuses_is_reported_with_the_reason(monkeypatch):
    monkeypatch.setattr(settings, "KAFKA_REPLICATION", 3)
    with pytest.raises(TopicError, match=r"KAFKA_REPLICATION=3.*only 1 broker"):
        ensure_topics([f"test.{secrets.token_hex(4)}"])


@needs_kafka
def test_the_group_is_listed_under_its_name(monkeypatch):
    monkeypatch.setattr(settings, "KAFKA_PREFIX", f"prefix-{secrets.token_hex(4)}-")
    subscription = new_subscription(RecordingHandler())
    with consuming(subscription):
        admin = AdminClient({"bootstrap.servers": settings.KAFKA_BOOTSTRAP_SERVERS})
        groups = {group.group_id for group in admin.list_consumer_groups().result(10).valid}
    assert settings.KAFKA_PREFIX + subscription.group in groups


@needs_kafka
def test_a_fatal_error_of_the_client_ends_the_consumer(monkeypatch):
    """Two readers share a static membership: Kafka fences the older one."""
    monkeypatch.setattr(settings, "KAFKA_CLIENT_CONFIG", {"group.instance.id": secrets.token_hex(4)})
    subscription = new_subscription(RecordingHandler())
    with pytest.raises(KafkaException, match="fenced"), consuming(subscription) as first, consuming(subscription):
        eventually(lambda: not first.is_running)


def test_a_consumer_that_lost_its_partitions_and_gets_no_others_rejoins(monkeypatch):
    monkeypatch.setattr(group_member, "REJOINS_AFTER", 6.0)
    subscription = new_subscription(handler := RecordingHandler())
    with consuming(subscription) as running:
        # Between two polls, on its own thread, the client leaves the group: nothing will give it partitions again.
        client, beat = running.consumer._consumer, running.consumer._heartbeat.beat
        leave = iter([client.unsubscribe])
        monkeypatch.setattr(running.consumer._heartbeat, "beat", lambda: (next(leave, beat)(), beat()))
        eventually(lambda: not running.partitions)
        put(subscription.topics[0], b"late")
        eventually(lambda: handler.values == [b"late"])


def has_leaders(lag: LagReader, topic: str, group: str) -> bool:
    """Kafka creates a topic before each of its partitions has a leader; until then it can't tell the lag."""
    try:
        lag.lag_by_partition(topic, group)
    except TransientError:
        return False
    return True


def test_a_groups_lag_is_the_number_of_messages_that_it_has_not_committed(patient, request):
    topic, lag = new_topic(), LagReader()
    request.addfinalizer(lag.close)
    group = secrets.token_hex(6)
    eventually(lambda: has_leaders(lag, topic, group), what="every partition of the new topic has a leader")
    assert lag.lag(topic, group) == 0
    put(topic, *numbered(3), partition=1)
    put(topic, *numbered(2), partition=2)
    assert lag.lag_by_partition(topic, group) == {0: 0, 1: 3, 2: 2, 3: 0}
    skip_to_the_end(topic, group=group)
    put(topic, b"one more", partition=1)
    assert lag.lag(topic, group) == 1


@needs_kafka
def test_no_message_is_lost_if_kafka_is_killed_during_the_work(monkeypatch):
    def handle(batch: Sequence[Incoming]) -> HandledBatch:
        began.set()
        released.wait(120)
        handler(batch)
        return HandledBatch(answers=[Outgoing(answers, None, message.value) for message in batch])

    handler, began, released = RecordingHandler(), threading.Event(), threading.Event()
    with KafkaServer() as kafka:
        monkeypatch.setattr(settings, "KAFKA_BOOTSTRAP_SERVERS", kafka.env["KAFKA_BOOTSTRAP_SERVERS"])
        answers, subscription = new_topic(), new_subscription(handle)
        put(subscription.topics[0], *numbered(20))
        with consuming(subscription):
            assert began.wait(PATIENCE)
            kafka.kill()
            released.set()
            kafka.start()
            put(subscription.topics[0], *numbered(20))
            eventually(lambda: sum(committed(subscription).values()) == 40)
        # More than 40 if messages that Kafka stored before the kill are delivered again (at-least-once).
        eventually(lambda: {message.value() for message in read_all(answers)} == set(numbered(20)))
    assert {(message.partition, message.offset) for message in handler.handled} == {
        (partition, offset) for partition, end in places(handler.handled).items() for offset in range(end)
    }
