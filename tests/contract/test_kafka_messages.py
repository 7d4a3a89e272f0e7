"""The validation of all Kafka messages reports invalid ones, except those that a test sends on purpose."""

import json
from uuid import uuid4

import pytest

from eventbus.embedded import EmbeddedBroker
from eventbus.messages import Outgoing, cloud_event_headers
from eventbus.producer import EventProducer
from tests.contract.documents import document
from tests.contract.kafka_messages import QUIET_AFTER, BrokerReader, bare, is_meant, message_name, validated
from tests.waiting import PATIENCE

ANSWERS = "user.newUser.res"
HEADERS = cloud_event_headers(type=ANSWERS, source="/chat")


@pytest.fixture
def reader(settings):
    """A reader of a broker with the topics of one prefix, to which the test may publish anything."""
    with EmbeddedBroker() as broker:
        settings.KAFKA_BOOTSTRAP_SERVERS, settings.KAFKA_EMBEDDED = broker.bootstrap_servers, True
        settings.KAFKA_PREFIX = "some-prefix_"
        reader = BrokerReader({"bootstrap.servers": broker.bootstrap_servers})
        yield reader
        reader.close()


def answer(**fields: object) -> bytes:
    example = document("asyncapi.yaml")["components"]["messages"]["newUserAnswered"]["examples"][0]["payload"]
    return json.dumps(example | {"signupId": str(uuid4())} | fields).encode()


def publish(*messages: Outgoing) -> None:
    producer = EventProducer()
    producer.send_all(messages, timeout=PATIENCE)
    assert producer.close(PATIENCE) == 0


def test_each_new_message_is_validated_once(reader: BrokerReader):
    publish(Outgoing(ANSWERS, "mina", answer(), HEADERS))
    assert reader.new_problems() == []

    publish(Outgoing(ANSWERS, "mina", answer(status="MAYBE"), HEADERS), Outgoing(ANSWERS, "mina", answer(), HEADERS))
    [problem] = reader.new_problems()
    assert problem.startswith("some-prefix_user.newUser.res[")
    assert "'MAYBE' is not one of ['SUCCESS', 'FAIL']" in problem
    assert reader.new_problems() == []


def test_a_quiet_topic_is_read_later_and_every_other_at_once(reader: BrokerReader):
    publish(Outgoing(ANSWERS, "mina", answer(), HEADERS))
    for _ in range(QUIET_AFTER + 1):
        assert reader.new_problems(quiet_topics=False) == []
    publish(Outgoing(ANSWERS, "mina", b"[]", HEADERS), Outgoing(f"{ANSWERS}.auth.dlt", "mina", b"no letter", HEADERS))
    [of_the_new_topic] = reader.new_problems(quiet_topics=False)
    assert of_the_new_topic.startswith("some-prefix_user.newUser.res.auth.dlt[")
    [of_the_quiet_topic] = reader.new_problems()
    assert of_the_quiet_topic.startswith("some-prefix_user.newUser.res[")
    publish(Outgoing(ANSWERS, "mina", b"{}", HEADERS))
    assert len(reader.new_problems(quiet_topics=False)) == 1, "it is no longer quiet"


@pytest.mark.parametrize(
    "message",
    [
        Outgoing(ANSWERS, "mina", b"no JSON", HEADERS),
        Outgoing(ANSWERS, "mina", None, HEADERS),
        Outgoing(ANSWERS, "mina", answer()),
        Outgoing(ANSWERS, "mina", answer(), cloud_event_headers(type="user.newUser.req", source="/chat")),
        Outgoing(f"{ANSWERS}.auth.dlt", "mina", b"no JSON", HEADERS),
    ],
    ids=["no JSON", "no value", "no headers", "the type of another event", "a dead letter without its headers"],
)
def test_an_invalid_message_is_reported_unless_a_test_sends_it_on_purpose(reader: BrokerReader, message: Outgoing):
    publish(message)
    assert len(reader.new_problems()) == 1

    is_meant(message.topic, message.value)
    publish(message)
    assert reader.new_problems() == []


def test_an_installation_that_published_an_invalid_message_fails_its_test(reader: BrokerReader):
    with pytest.raises(AssertionError, match="1 messages do not fit"), validated({"bootstrap.servers": reader.address}):
        publish(Outgoing(ANSWERS, "mina", b"[]", HEADERS))


def test_topics_are_recognised_with_and_without_a_prefix():
    assert message_name("user.newUser.req") == message_name("a-b_user.newUser.req") == "newUserRequested"
    assert message_name("x-user.newUser.req.chat.dlt") == "deadLetter"
    assert message_name("test.0123") is message_name("superuser.newUser.req") is None
    assert bare("x-user.newUser.req") == "user.newUser.req"
