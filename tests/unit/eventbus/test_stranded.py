"""Clients that have lost Kafka for good are distinguished from those that wait for it, and replaced.

In these tests, such a client was created with an address where there is no Kafka.
"""

import math
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from typing import Any
from unittest.mock import Mock

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer

from eventbus import clients, group_member
from eventbus import producer as producer_module
from eventbus.clients import ASKED_AGAIN, client_config, is_stranded
from eventbus.consumer import BatchConsumer
from eventbus.group_member import run_reader
from eventbus.inspection.lag import LagReader
from eventbus.messages import HandledBatch, Outgoing, Subscription
from eventbus.metrics import CONSUMERS_REPLACED, LAG, PRODUCERS_REPLACED
from eventbus.producer import EventProducer
from runtime.errors import TransientError
from runtime.processes.roles import ENDS_WITHIN
from tests.broker import committed, new_topic, put, read_all
from tests.unit.eventbus.conftest import use
from tests.waiting import PATIENCE, eventually

NOWHERE = "127.0.0.1:1"


@pytest.fixture(autouse=True)
def short_times(monkeypatch):
    monkeypatch.setattr(clients, "RECONNECTS_WITHIN", 0.5)
    monkeypatch.setattr(group_member, "CHECKED_EVERY", 0.1)
    monkeypatch.setattr(producer_module, "STALLED_AFTER", 0.1)


def test_a_client_is_stranded_only_if_a_new_one_reaches_kafka(broker, settings):
    settings.KAFKA_BOOTSTRAP_SERVERS = NOWHERE
    lost = Producer(client_config({}))
    assert not is_stranded(lost, threading.Event())
    use(broker, settings)
    assert is_stranded(lost, threading.Event())
    assert not is_stranded(Producer(client_config({})), threading.Event())


NO_BROKER = KafkaException(KafkaError(KafkaError._TRANSPORT))
NO_ANSWER = KafkaException(KafkaError(KafkaError._TIMED_OUT))


@pytest.mark.parametrize(
    ("answers", "stranded"),
    [
        ([None], False),
        ([NO_ANSWER], False),
        ([NO_BROKER, None], False),
        ([NO_BROKER, NO_ANSWER], False),
        ([NO_BROKER, *[NO_BROKER] * (ASKED_AGAIN - 1), None], False),
        ([NO_BROKER, *[NO_BROKER] * ASKED_AGAIN], True),
    ],
    ids=[
        "reaches Kafka",
        "its broker is slow",
        "connects again",
        "connects to a slow broker",
        "connects at last",
        "knows no broker",
    ],
)
def test_a_client_that_still_knows_a_broker_is_not_stranded(embedded, answers, stranded):
    """Although a new client reaches Kafka."""
    client = Mock(list_topics=Mock(side_effect=answers))
    assert is_stranded(client, threading.Event()) is stranded
    assert client.list_topics.call_count == len(answers)


def test_a_producer_replaces_a_stranded_client_and_counts_it(broker, settings):
    counted = PRODUCERS_REPLACED._value.get()
    settings.KAFKA_BOOTSTRAP_SERVERS = NOWHERE
    producer = EventProducer()
    use(broker, settings)
    topic = new_topic()

    def arrives() -> bool:
        producer.send(Outgoing(topic, "key", b"again and again"))
        return bool(read_all(topic))

    eventually(arrives)
    producer.close(1)
    assert PRODUCERS_REPLACED._value.get() == counted + 1


def test_a_reader_of_the_lag_replaces_a_stranded_client_and_counts_it(broker, settings):
    counted = CONSUMERS_REPLACED._value.get()
    use(broker, settings)
    topic = new_topic()
    put(topic, b"unread")
    settings.KAFKA_BOOTSTRAP_SERVERS = NOWHERE
    with closing(LagReader()) as reader:
        for reaches_kafka in (False, True):
            with pytest.raises(TransientError):
                reader.lag(topic, "readers")
            assert CONSUMERS_REPLACED._value.get() == counted + reaches_kafka
            settings.KAFKA_BOOTSTRAP_SERVERS = broker.bootstrap_servers
        assert reader.lag(topic, "readers") == 1
    assert CONSUMERS_REPLACED._value.get() == counted + 1


def test_while_one_lag_is_unknown_no_other_looks_current(broker, settings):
    use(broker, settings)
    topic = new_topic()
    put(topic, b"unread")
    shown = {group: LAG.labels(topic, group)._value for group in ("known", "unknown")}
    with closing(LagReader()) as reader:
        assert reader.lag(topic, "known") == shown["known"].get() == 1
        settings.KAFKA_BOOTSTRAP_SERVERS = NOWHERE
        with pytest.raises(TransientError):
            reader.lag(topic, "unknown")
        assert all(math.isnan(value.get()) for value in shown.values())
        assert reader.lag(topic, "known") == shown["known"].get() == 1


def test_a_consumer_with_a_stranded_client_is_replaced_and_counted(broker, settings, caplog):
    counted = CONSUMERS_REPLACED._value.get()
    use(broker, settings)
    subscription = Subscription("readers", (new_topic(),), Mock(return_value=HandledBatch()))
    settings.KAFKA_BOOTSTRAP_SERVERS = NOWHERE
    lost = BatchConsumer(subscription)
    settings.KAFKA_BOOTSTRAP_SERVERS = broker.bootstrap_servers
    members = iter([lost, BatchConsumer(subscription)])
    put(subscription.topics[0], b"read at last")
    stop = threading.Event()
    with ThreadPoolExecutor(1) as threads:
        run = threads.submit(run_reader, partial(next, members), stop)
        try:
            eventually(lambda: committed(subscription))
        finally:
            stop.set()
        run.result(10)
    assert list(members) == []
    assert CONSUMERS_REPLACED._value.get() == counted + 1
    assert "replacing the consumer: its client no longer reaches Kafka, although a new one does" in caplog.text


def test_a_stop_request_ends_the_check_of_a_stranded_consumer(broker, settings, monkeypatch):
    """A role that has not stopped after ENDS_WITHIN is ended by force, with exit code 1."""
    monkeypatch.setattr(clients, "RECONNECTS_WITHIN", 10 * ENDS_WITHIN)
    begun, stop = threading.Event(), threading.Event()

    def is_asked(*asked: Any) -> bool:
        begun.set()
        return is_stranded(*asked)

    monkeypatch.setattr(group_member, "is_stranded", is_asked)
    use(broker, settings)
    subscription = Subscription("readers", (new_topic(),), Mock(return_value=HandledBatch()))
    settings.KAFKA_BOOTSTRAP_SERVERS = NOWHERE
    lost = BatchConsumer(subscription)
    settings.KAFKA_BOOTSTRAP_SERVERS = broker.bootstrap_servers
    with ThreadPoolExecutor(1) as threads:
        run = threads.submit(run_reader, lambda: lost, stop)
        assert begun.wait(PATIENCE)
        stop.set()
        run.result(ENDS_WITHIN)
