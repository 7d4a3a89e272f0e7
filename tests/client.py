"""A client of the product's contracts (HTTP, SSE and Kafka), written from the documents and not from the code."""

import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPMessage, HTTPResponse
from operator import methodcaller
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import confluent_kafka
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Producer, TopicPartition

from signup_sync.participants import PARTICIPANTS
from tests.conftest import Person
from tests.contract import kafka_messages
from tests.contract.documents import check_event, check_response
from tests.stack import Stack
from tests.waiting import PATIENCE

# The services of an installation that tests.stack starts, in the order of their lights.
SERVICES = ("auth", *PARTICIPANTS)


@dataclass(frozen=True)
class Answer:
    """A complete HTTP response."""

    status: int
    headers: HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class ServerEvent:
    """One server-sent event."""

    kind: str
    id: int | None
    data: dict[str, Any]

    @property
    def statuses(self) -> dict[str, str]:
        return {service: light["status"] for service, light in self.data["services"].items()}


def request(
    stack: Stack, method: str, path: str, body: bytes | Mapping[str, Any] | None = None, **headers: str
) -> Answer:
    """Send one request through the gateway, and validate an answer of the API. Header names have `_` for `-`."""
    with opened(stack, method, path, body, **headers) as response:
        answer = Answer(response.status, response.headers, response.read())
    check_response(method, path, answer.status, answer.headers.get("Content-Type", ""), answer.body)
    return answer


@contextmanager
def opened(
    stack: Stack, method: str, path: str, body: bytes | Mapping[str, Any] | None = None, **headers: str
) -> Iterator[HTTPResponse]:
    """Like `request`, but with the response still open."""
    address = urlsplit(stack.base_url)
    connection = HTTPConnection(address.hostname or "", address.port, timeout=30)
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    if isinstance(body, Mapping):
        body = json.dumps(body).encode()
        sent.setdefault("Content-Type", "application/json")
    try:
        # The server may refuse a body that is too long while it is still being sent.
        with suppress(BrokenPipeError):
            connection.request(method, path, body=body, headers=sent)
        yield connection.getresponse()
    finally:
        connection.close()


def sign_up(stack: Stack, form: Mapping[str, Any], **headers: str) -> list[ServerEvent]:
    """Post to `/user`, and read the stream to its end."""
    with opened(stack, "POST", "/user", form, Accept="text/event-stream", **headers) as response:
        assert response.status == 200, response.read()
        return list(events(response))


def filled_form(page: str, person: Person) -> dict[str, str]:
    """Return what a browser posts after this person has filled in the page's sign-up form."""
    hidden = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]+)"', page))
    return hidden | person.form | {"userPw2": person.password}


def events(response: HTTPResponse) -> Iterator[ServerEvent]:
    """Yield the events of a stream as they arrive."""
    fields: dict[str, str] = {}
    while line := response.readline():
        text = line.decode().rstrip("\n")
        if text:
            name, _, value = text.partition(": ")
            if name and name != "retry":
                fields[name] = value
        elif "data" in fields:
            check_event(fields)
            identity = fields.get("id")
            yield ServerEvent(fields["event"], int(identity) if identity else None, json.loads(fields["data"]))
            fields = {}


def produce(
    stack: Stack, topic: str, value: bytes | Mapping[str, Any], *, key: str | None = None, **headers: str
) -> None:
    """Publish one event with its headers and perhaps others, and wait until Kafka has acknowledged it."""
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    body = json.loads(text)
    source = "/" + (body["service"] if topic.endswith(".res") else "auth")
    event = {
        "content-type": "application/json", "ce_specversion": "1.0", "ce_id": str(uuid4()), "ce_type": topic,
        "ce_source": source, "ce_time": body["occurredAt"],
    }  # fmt: skip
    _publish(stack, topic, text, key=key, headers=event | headers)


def produce_invalid(stack: Stack, topic: str, value: bytes, *, key: str | None = None, **headers: str) -> None:
    """Publish a message that does not fit the contract, and wait until Kafka has acknowledged it."""
    kafka_messages.is_meant(topic, value)
    _publish(stack, topic, value, key=key, headers=headers)


def _publish(stack: Stack, topic: str, value: bytes, *, key: str | None, headers: Mapping[str, str]) -> None:
    producer = Producer({"bootstrap.servers": stack.env["KAFKA_BOOTSTRAP_SERVERS"], "partitioner": "murmur2_random"})
    errors: list[Any] = []
    producer.produce(
        stack.env["KAFKA_PREFIX"] + topic,
        key=key,
        value=value,
        headers=dict(headers),
        on_delivery=lambda error, _: errors.append(error),
    )
    producer.flush(PATIENCE)
    assert errors == [None]


@dataclass(frozen=True)
class Message:
    key: bytes | None
    value: bytes
    headers: Mapping[str, bytes]


def topic_of(stack: Stack, topic: str) -> list[Message]:
    """Return the current messages of a topic of the installation."""
    return read_topic(stack.env["KAFKA_BOOTSTRAP_SERVERS"], stack.env["KAFKA_PREFIX"] + topic)


def read_topic(bootstrap_servers: str, topic: str) -> list[Message]:
    """Return the current messages of the topic, read with a new group."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap_servers,
            "group.id": f"test-{uuid4()}",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
            "fetch.wait.max.ms": 20,
        }
    )
    try:
        return list(_read_to_the_end(consumer, topic))
    finally:
        consumer.close()


def _headers_of(message: confluent_kafka.Message) -> dict[str, bytes]:
    try:
        # Like eventbus.consumer: a name that is not UTF-8 sets an error that is only raised in a call from C.
        return dict(methodcaller("headers")(message) or [])
    except (SystemError, UnicodeError):
        return {}


def _read_to_the_end(consumer: Consumer, topic: str) -> Iterator[Message]:
    partitions: Sequence[int] = list(consumer.list_topics(topic, timeout=PATIENCE).topics[topic].partitions)
    consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in partitions])
    ended: set[int] = set()
    deadline = time.monotonic() + PATIENCE
    while len(ended) < len(partitions):
        assert time.monotonic() < deadline, f"{topic} was not read to its end"
        message = consumer.poll(0.5)
        if message is None:
            continue
        if message.error():
            assert message.error().code() == KafkaError._PARTITION_EOF, message.error()
            ended.add(message.partition())
        else:
            yield Message(message.key(), message.value() or b"", _headers_of(message))
