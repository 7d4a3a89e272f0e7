"""The steps of one attempt at a batch, on the embedded broker. test_attempts.py tests their rules without a broker, and
tests/contract/test_broker_conformance.py tests all of them together."""

from collections.abc import Iterator, Sequence
from functools import partial

import pytest

from eventbus import batch_processor
from eventbus.batch_processor import BatchProcessor
from eventbus.errors import BugError, DeliveryError, TooLargeError
from eventbus.messages import HandledBatch, Handler, Incoming, Outgoing, Subscription
from eventbus.metrics import ReadingMetrics
from eventbus.producer import EventProducer
from runtime.errors import PermanentError, TransientError
from tests.broker import new_topic, read


def incoming(offset: int, value: bytes = b"good") -> Incoming:
    return Incoming(topic="asked", partition=0, offset=offset, key=b"key", value=value)


@pytest.fixture
def producer(embedded) -> Iterator[EventProducer]:
    producer = EventProducer()
    yield producer
    producer.close(0.5)


def processor(handle: Handler, producer: EventProducer) -> BatchProcessor:
    subscription = Subscription(group="readers", topics=("asked",), handle=handle)
    return BatchProcessor(subscription, producer, ReadingMetrics(["asked"], "readers"))


def answering(batch: Sequence[Incoming], *, to: str = "answers") -> HandledBatch:
    """Answers each message with its offset; poison makes its whole batch fail."""
    if any(message.value == b"poison" for message in batch):
        raise PermanentError("poison")
    return HandledBatch(answers=[Outgoing(to, "key", b"%d" % message.offset) for message in batch])


# --- One attempt ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("poisoned", [{0}, {6}, {2, 3}, set(range(7))], ids=str)
def test_of_a_failing_batch_only_messages_that_fail_alone_are_rejected(producer, poisoned):
    answers = new_topic()
    batch = [incoming(offset, b"poison" if offset in poisoned else b"good") for offset in range(7)]
    rejected = processor(partial(answering, to=answers), producer).handle(batch, {})
    assert [int(answer.value()) for answer in read(answers, 7 - len(poisoned))] == [
        n for n in range(7) if n not in poisoned
    ]
    assert [message.offset for message, _ in rejected] == sorted(poisoned)
    assert {type(error) for _, error in rejected} == {PermanentError}


def test_a_transient_error_rejects_nothing_even_beside_poison(producer):
    def handle(batch: Sequence[Incoming]) -> HandledBatch:
        if len(batch) == 1 and batch[0].value == b"good":
            raise TransientError("away")
        return answering(batch)

    with pytest.raises(TransientError):
        processor(handle, producer).handle([incoming(0, b"poison"), incoming(1)], {})


def test_a_try_ends_when_answers_and_dead_letters_are_in_kafka(producer):
    def handle(batch: Sequence[Incoming]) -> HandledBatch:
        return HandledBatch(answers=[Outgoing(answers, "key", b"yes")], rejected=[(batch[0], ValueError("no"))])

    answers = new_topic()
    processor(handle, producer).process([incoming(0, b"odd")])
    assert [message.value() for message in read(answers, 1)] == [b"yes"]
    assert [message.value() for message in read("asked.readers.dlt", 1)] == [b"odd"]


def test_an_attempt_with_an_unacknowledged_answer_fails(settings, monkeypatch):
    monkeypatch.setattr(batch_processor, "ACKNOWLEDGED_WITHIN", 0.2)
    settings.KAFKA_BOOTSTRAP_SERVERS = "127.0.0.1:1"
    away = EventProducer()
    with pytest.raises(DeliveryError):
        processor(answering, away).process([incoming(0)])
    away.close(0)


def test_a_message_whose_answer_is_too_large_is_rejected_alone(producer):
    def handle(batch: Sequence[Incoming]) -> HandledBatch:
        return HandledBatch(answers=[Outgoing(answers, "key", message.value * 4) for message in batch])

    answers = new_topic()
    batch = [incoming(0, b"a"), incoming(1, bytes(500_000)), incoming(2, b"b")]
    [(message, error)] = processor(handle, producer).handle(batch, {})
    assert message.offset == 1
    assert isinstance(error, TooLargeError)
    # The first was answered with the batch and again with its half, which is harmless.
    assert {answer.value() for answer in read(answers, 3)} == {b"aaaa", b"bbbb"}


def test_if_a_large_batch_fails_as_a_whole_nothing_is_dead_lettered(producer, monkeypatch):
    def handle(batch: Sequence[Incoming]) -> HandledBatch:
        raise KeyError("bug")

    sent: list[Outgoing] = []
    monkeypatch.setattr(producer, "send_all", lambda messages, timeout: sent.extend(messages))
    with pytest.raises(BugError) as caught:
        processor(handle, producer).process([incoming(offset) for offset in range(500)])
    assert isinstance(caught.value.__cause__, KeyError)
    assert sent == []
