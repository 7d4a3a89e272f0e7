"""Topics on the embedded broker. tests/contract/test_broker_conformance.py creates them on Kafka."""

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from eventbus import topics
from eventbus.topics import dead_letter_topic, ensure_topics
from runtime.errors import TransientError, is_transient


def test_a_group_s_dead_letters_have_a_topic_of_their_own():
    assert dead_letter_topic("user.newUser.req", "chat") == "user.newUser.req.chat.dlt"


def test_topics_exist_before_their_first_use(embedded, settings):
    ensure_topics(["one", "two"])
    there = AdminClient({"bootstrap.servers": embedded.bootstrap_servers}).list_topics(timeout=5).topics
    for name in ("one", "two"):
        assert len(there[settings.KAFKA_PREFIX + name].partitions) == 4


@pytest.mark.parametrize("embedded", [True, False])
def test_an_outage_of_kafka_is_a_transient_error(settings, monkeypatch, embedded):
    settings.KAFKA_BOOTSTRAP_SERVERS = "127.0.0.1:1"
    settings.KAFKA_EMBEDDED = embedded
    monkeypatch.setattr(topics, "ANSWERS_WITHIN", 0.1)
    with pytest.raises(KafkaException) as raised:
        ensure_topics(["one"])
    assert is_transient(raised.value)


def test_a_topic_that_kafka_does_not_list_in_time_is_a_transient_error(embedded, monkeypatch):
    monkeypatch.setattr(topics, "MADE_WITHIN", 0.1)
    admin = AdminClient({"bootstrap.servers": embedded.bootstrap_servers})
    with pytest.raises(TransientError, match="the topics never-made but does not list them"):
        topics._wait_until_known(admin, ["never-made"])
