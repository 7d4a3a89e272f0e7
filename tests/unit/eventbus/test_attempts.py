"""One attempt at a batch: which messages are handled, answered and dead-lettered, with a fake producer."""

from collections.abc import Callable, Sequence

import pytest
from structlog.contextvars import clear_contextvars, get_contextvars

from eventbus import batch_processor
from eventbus.batch_processor import ACKNOWLEDGED_WITHIN, BatchProcessor, type_and_first_line
from eventbus.errors import BugError, DeliveryError, TooLargeError
from eventbus.messages import CUT_VALUE_MAX, ERROR_TEXT_MAX, HandledBatch, Handler, Incoming, Outgoing, Subscription
from eventbus.metrics import BATCH_SECONDS, DEAD_LETTERS, MESSAGES, ReadingMetrics
from runtime.errors import PermanentError, TransientError
from tests.unit.fakes import Clock, KeepingProducer

LETTERS = "asked.readers.dlt"


def incoming(offset: int, value: bytes = b"good") -> Incoming:
    return Incoming(topic="asked", partition=3, offset=offset, key=b"key", value=value)


def processor(handle: Handler, producer: KeepingProducer) -> BatchProcessor:
    subscription = Subscription(group="readers", topics=("asked",), handle=handle)
    return BatchProcessor(subscription, producer, ReadingMetrics(["asked"], "readers"))


def answer(message: Incoming) -> Outgoing:
    return Outgoing("answers", "key", b"%d" % message.offset)


@pytest.fixture(autouse=True)
def closed(monkeypatch) -> list[int]:
    """One entry for each time that the database connections are checked."""
    calls: list[int] = []
    monkeypatch.setattr(batch_processor, "close_old_connections", lambda: calls.append(1))
    yield calls
    clear_contextvars()


@pytest.fixture
def producer() -> KeepingProducer:
    return KeepingProducer()


# --- Success ------------------------------------------------------------------------------------------------------


def test_the_answers_are_sent_first_then_the_dead_letters_and_all_of_it_is_counted(
    producer, closed, caplog, monkeypatch
):
    clock = Clock()
    monkeypatch.setattr(batch_processor, "time", clock)

    def handle(batch: Sequence[Incoming]) -> HandledBatch:
        clock.now += 0.125
        return HandledBatch([answer(batch[0])], [(batch[1], ValueError("no\nat all"))])

    figures = [metric.labels("asked", "readers") for metric in (MESSAGES, DEAD_LETTERS)]
    before = [figure._value.get() for figure in figures]
    seconds = BATCH_SECONDS.labels("asked", "readers")._sum
    seconds_before = seconds.get()
    processor(handle, producer).process([incoming(0), incoming(17)])
    assert [message.topic for message in producer.sent] == ["answers", LETTERS]
    assert producer.timeouts == [ACKNOWLEDGED_WITHIN] * 2
    letter = producer.sent[1]
    assert (letter.key, letter.value) == (b"key", b"good")
    headers = dict(letter.headers)
    assert (headers["dlt-offset"], headers["dlt-error"]) == (b"17", b"builtins.ValueError")
    assert headers["dlt-group"].endswith(b"readers")
    assert [figure._value.get() - earlier for figure, earlier in zip(figures, before, strict=True)] == [2, 1]
    assert seconds.get() - seconds_before == 0.125
    assert "dead-lettered asked[3] at 17: ValueError: no" in caplog.text
    assert get_contextvars()["group"] == "readers"
    assert closed == []


def test_a_message_can_be_too_large_for_its_topic_or_as_a_dead_letter(producer):
    producer.too_large = (bytes(CUT_VALUE_MAX + 5),)
    batch = [incoming(0, b"odd"), incoming(17, bytes(CUT_VALUE_MAX + 5))]
    rejected = HandledBatch(rejected=[(message, ValueError("no")) for message in batch])
    processor(lambda batch: rejected, producer).process(batch)
    # The topic has the default limit, so the letter that is too large is truncated. Kafka already has the other one.
    [letter] = producer.sent
    assert (letter.topic, letter.value) == (LETTERS, bytes(CUT_VALUE_MAX))
    headers = dict(letter.headers)
    assert (headers["dlt-value-bytes"], headers["dlt-offset"]) == (b"%d" % (CUT_VALUE_MAX + 5), b"17")
    assert (headers["dlt-error"], headers["dlt-message"]) == (b"builtins.ValueError", b"no")
    assert headers["dlt-group"].endswith(b"readers")
    assert producer.timeouts == [ACKNOWLEDGED_WITHIN] * 3


# --- Failures -----------------------------------------------------------------------------------------------------


def noted(handle: Handler) -> tuple[list[list[int]], Handler]:
    """Return the handler, and a list that gets the offsets of each batch."""
    batches: list[list[int]] = []

    def noting(batch: Sequence[Incoming]) -> HandledBatch:
        batches.append([message.offset for message in batch])
        return handle(batch)

    return batches, noting


def refusing(*offsets: int, error: Callable[[str], Exception] = PermanentError) -> Handler:
    """A handler that refuses batches with one of these messages, and answers all others."""

    def handle(batch: Sequence[Incoming]) -> HandledBatch:
        if any(message.offset in offsets for message in batch):
            raise error("poison")
        return HandledBatch([answer(message) for message in batch])

    return handle


def test_a_failing_batch_is_halved_until_only_messages_that_fail_alone_are_left(producer, caplog):
    batches, handle = noted(refusing(3))
    batch = [incoming(offset) for offset in range(6)]
    failures: dict[Incoming, Exception] = {}
    [(message, error)] = processor(handle, producer).handle(batch, failures)
    assert batches == [[0, 1, 2, 3, 4, 5], [0, 1, 2], [3, 4, 5], [3], [4, 5]]
    assert (message.offset, str(error)) == (3, "poison")
    assert [message.value for message in producer.sent] == [b"0", b"1", b"2", b"4", b"5"]
    assert producer.timeouts == [ACKNOWLEDGED_WITHIN] * 2
    assert failures == {}, "the message says itself that it can't be handled"
    assert "a batch of 6 can't be handled as a whole: PermanentError: poison" in caplog.text
    assert "can't handle asked[3] at 3" in caplog.text


def test_messages_that_fail_alone_and_unexpectedly_are_recorded(producer):
    batch = [incoming(offset) for offset in range(4)]
    failures: dict[Incoming, Exception] = {}
    rejected = processor(refusing(1, 2, error=KeyError), producer).handle(batch, failures)
    assert [message.offset for message, _ in rejected] == [1, 2]
    assert list(failures.items()) == rejected


def test_a_transient_error_is_raised_to_the_caller_for_a_retry(producer, closed):
    batches, handle = noted(refusing(0, error=TransientError))
    with pytest.raises(TransientError):
        processor(handle, producer).process([incoming(0), incoming(1)])
    assert batches == [[0, 1]]
    assert producer.sent == []
    assert closed == [1]


def test_an_answer_that_is_not_acknowledged_fails_the_attempt(producer, closed):
    producer.lost = [b"1"]
    with pytest.raises(DeliveryError):
        processor(refusing(), producer).process([incoming(0), incoming(1)])
    assert closed == [1]


def test_an_answer_that_is_too_large_rejects_its_message_alone(producer):
    producer.too_large = (b"2",)
    failures: dict[Incoming, Exception] = {}
    [(message, error)] = processor(refusing(), producer).handle([incoming(offset) for offset in range(4)], failures)
    assert message.offset == 2
    assert isinstance(error, TooLargeError)
    assert failures == {}
    assert {message.value for message in producer.sent} == {b"0", b"1", b"3"}


def test_a_message_rejected_by_the_handler_is_no_failure(producer):
    error = ValueError("no")
    failures: dict[Incoming, Exception] = {}
    batch = [incoming(0)]
    handle = processor(lambda batch: HandledBatch(rejected=((batch[0], error),)), producer).handle
    assert handle(batch, failures) == [(batch[0], error)]
    assert failures == {}


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("one\ntwo"), "ValueError: one"),
        (KeyError("one"), "KeyError: 'one'"),
        (ValueError(""), "ValueError: "),
    ],
)
def test_an_error_is_logged_in_one_line(error, line):
    assert type_and_first_line(error) == line


def test_a_long_error_is_cut():
    assert len(type_and_first_line(ValueError("x" * 9000))) <= ERROR_TEXT_MAX + 20


# --- Bugs ---------------------------------------------------------------------------------------------------------


def buggy(batch: Sequence[Incoming]) -> HandledBatch:
    """A handler that fails unexpectedly at each message marked for that."""
    if any(message.value == b"bug" for message in batch):
        raise KeyError("bug")
    return HandledBatch()


def batch_of(values: str) -> list[Incoming]:
    """A message for each letter: the handler fails at b, and not at g."""
    return [incoming(offset, {"b": b"bug", "g": b"good"}[value]) for offset, value in enumerate(values)]


@pytest.mark.parametrize("values", ["b" * 9, "bg" * 5, "b" * 5 + "g" * 5, "bbbbbbbbbg" + "g" * 8, "b" * 9 + "g" * 9])
def test_if_most_messages_succeed_those_that_fail_unexpectedly_are_dead_lettered(producer, values):
    processor(buggy, producer).process(batch_of(values))
    assert len(producer.sent) == values.count("b")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ("b" * 10, "10 messages in a row failed"),
        ("bbbbbbgggg", "6 of a batch of 10 messages failed"),
        ("bg" * 5 + "b", "6 of a batch of 11 messages failed"),
    ],
)
def test_if_most_of_a_large_batch_fails_unexpectedly_nothing_is_dead_lettered(producer, values, said):
    with pytest.raises(BugError, match=said) as caught:
        processor(buggy, producer).process(batch_of(values))
    assert isinstance(caught.value.__cause__, KeyError)
    assert producer.sent == []


def test_ten_failures_in_a_row_raise_also_across_small_batches(producer):
    running = processor(buggy, producer)
    for values in ("gb", *["b"] * 8):
        running.process(batch_of(values))
    assert len(producer.sent) == 9
    with pytest.raises(BugError, match="10 messages in a row"):
        running.process(batch_of("b"))
    assert len(producer.sent) == 9


def test_one_success_begins_the_count_again(producer):
    running = processor(buggy, producer)
    for values in (*["b"] * 9, "g", *["b"] * 9):
        running.process(batch_of(values))


def test_an_attempt_that_fails_later_does_not_count(producer):
    running = processor(buggy, producer)
    running.process(batch_of("b" * 5))
    producer.lost = [b"bug"]
    for values in ("bbbb", "bg"):
        with pytest.raises(DeliveryError):
            running.process(batch_of(values))
    producer.lost = []
    running.process(batch_of("bbbb"))
    with pytest.raises(BugError, match="10 messages in a row"):
        running.process(batch_of("b"))


def test_rejected_messages_do_not_count_as_unexpected_failures(producer):
    processor(refusing(*range(30)), producer).process([incoming(offset) for offset in range(30)])
    assert len(producer.sent) == 30
