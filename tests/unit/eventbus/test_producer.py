"""Publishing while Kafka is available, becomes unavailable, or was never available."""

import threading
import time

import pytest

from eventbus import producer as producer_module
from eventbus.embedded import EmbeddedBroker
from eventbus.errors import DeliveryError
from eventbus.messages import Outgoing
from eventbus.producer import EventProducer
from tests.broker import new_topic, read
from tests.unit.eventbus.conftest import use
from tests.waiting import eventually


@pytest.fixture
def nowhere(settings, monkeypatch) -> None:
    """A port without Kafka."""
    settings.KAFKA_BOOTSTRAP_SERVERS = "127.0.0.1:1"
    monkeypatch.setattr(producer_module, "GIVEN_UP_AFTER", 0.3)


@pytest.fixture
def small_queue(settings) -> None:
    settings.KAFKA_CLIENT_CONFIG = {"queue.buffering.max.messages": 2}


def test_send_all_waits_until_every_message_is_acknowledged(embedded):
    topic, producer = new_topic(), EventProducer()
    producer.send_all([Outgoing(topic, str(number), b"value") for number in range(500)], timeout=10)
    assert len(read(topic, 500)) == 500
    assert producer.close(1) == 0


def test_sending_no_messages_needs_no_kafka(nowhere):
    producer = EventProducer()
    producer.send_all([], timeout=0.0)
    assert producer.close(0) == 0


def test_begin_all_returns_at_once_and_wait_raises_the_error(nowhere):
    producer, message = EventProducer(), Outgoing("topic", "key", b"value")
    began = time.monotonic()
    delivery = producer.begin_all([message], timeout=0.2)
    assert time.monotonic() - began < 0.1
    with pytest.raises(DeliveryError) as raised:
        delivery.wait()
    assert time.monotonic() - began < 0.5
    assert list(raised.value.failed) == [message]
    producer.close(1)


def test_more_than_the_local_queue_holds_can_be_sent(embedded, small_queue):
    topic, producer = new_topic(), EventProducer()
    producer.send_all([Outgoing(topic, "key", b"%d" % number) for number in range(50)], timeout=10)
    assert [message.value() for message in read(topic, 50)] == [b"%d" % number for number in range(50)]
    producer.close(1)


def test_any_thread_may_send(embedded):
    topic, producer = new_topic(), EventProducer()
    threads = [
        threading.Thread(target=lambda: [producer.send(Outgoing(topic, None, b"value")) for _ in range(200)])
        for _ in range(5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert producer.close(5) == 0
    assert len(read(topic, 1000)) == 1000


def test_the_error_has_the_messages_that_were_not_acknowledged_in_time(nowhere, monkeypatch):
    monkeypatch.setattr(producer_module, "GIVEN_UP_AFTER", 60.0)
    producer, message = EventProducer(), Outgoing("topic", "key", b"value")
    began = time.monotonic()
    with pytest.raises(DeliveryError, match="1 messages were not acknowledged by Kafka: no answer in time") as raised:
        producer.send_all([message], timeout=0.1)
    assert time.monotonic() - began < 30
    assert list(raised.value.failed) == [message]
    producer.close(0)


def test_a_broker_that_dies_raises_an_error(settings, monkeypatch):
    monkeypatch.setattr(producer_module, "GIVEN_UP_AFTER", 4.0)  # its first message takes half a second
    with EmbeddedBroker() as broker:
        use(broker, settings)
        topic, producer = new_topic(), EventProducer()
        producer.send_all([Outgoing(topic, "key", b"first")], timeout=10)
    with pytest.raises(DeliveryError, match="Message timed out"):
        producer.send_all([Outgoing(topic, "key", b"second")], timeout=60)
    producer.close(1)


def test_sending_does_not_wait_for_kafka(nowhere, monkeypatch):
    monkeypatch.setattr(producer_module, "GIVEN_UP_AFTER", 60.0)
    producer = EventProducer()
    began = time.monotonic()
    assert all(producer.send(Outgoing("topic", "key", b"value")) for _ in range(1000))
    assert time.monotonic() - began < 30
    producer.close(0)


def test_a_full_queue_is_reported_at_once(nowhere, small_queue):
    producer, message = EventProducer(), Outgoing("topic", "key", b"value")
    assert [producer.send(message) for _ in range(3)] == [True, True, False]
    with pytest.raises(DeliveryError, match="Queue full"):
        producer.send_all([message], timeout=0.05)
    assert producer.close(0) == 2


def test_losses_are_counted_and_logged_in_few_lines_without_their_content(nowhere, caplog):
    producer = EventProducer()
    for _ in range(100):
        producer.send(Outgoing("topic", "personal", b"secret"))
    eventually(lambda: producer.lost == 100)
    producer.close(0)
    lines = [record.getMessage() for record in caplog.records if "not delivered" in record.getMessage()]
    assert sum(int(line.split()[0]) for line in lines) == 100
    assert len(lines) < 10
    assert "the last to topic: " in lines[-1]
    assert "personal" not in caplog.text
    assert "secret" not in caplog.text


def test_closing_delivers_the_messages_sent_before(embedded):
    topic, producer = new_topic(), EventProducer()
    for number in range(100):
        producer.send(Outgoing(topic, "key", b"%d" % number))
    assert producer.close(5) == 0
    assert len(read(topic, 100)) == 100


def test_closing_returns_the_number_of_undelivered_messages(nowhere):
    producer = EventProducer()
    producer.send(Outgoing("topic", "key", b"value"))
    assert producer.close(0) == 1
