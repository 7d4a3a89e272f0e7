"""Reads the messages of the containers' Kafka, which no client outside their network reaches, and validates them."""

import base64
import json
import time
from collections.abc import Iterator

from tests.compose.installation import Installation
from tests.contract import kafka_messages

# Runs in a container of the product's image, as Kafka's administrator. Prints a line of JSON for each message: topic,
# partition, offset, and base64 of the headers and the value.
PRINT_ALL = """
import base64, json, os
from confluent_kafka import Consumer, TopicPartition

def text(value):
    return None if value is None else base64.b64encode(value).decode()

config = json.loads(os.environ["KAFKA_CLIENT_CONFIG"]) | {
    "bootstrap.servers": os.environ["KAFKA_BOOTSTRAP_SERVERS"], "group.id": "contract",
    "enable.auto.commit": False, "enable.partition.eof": True, "auto.offset.reset": "earliest",
}
consumer = Consumer(config)
topics = consumer.list_topics(timeout=30).topics
places = {(name, number) for name, topic in topics.items() if name[0] != "_" for number in topic.partitions}
consumer.assign([TopicPartition(name, number, 0) for name, number in places])
while places:
    for message in consumer.consume(500, 10) or exit("Kafka does not answer"):
        if message.error():
            places.discard((message.topic(), message.partition()))
        else:
            headers = {name: text(value) for name, value in message.headers() or ()}
            place = [message.topic(), message.partition(), message.offset()]
            print(json.dumps([*place, headers, text(message.value())]))
"""


def validate_messages(installation: Installation) -> None:
    """Raise AssertionError if a message that is in Kafka does not fit docs/asyncapi.yaml."""
    began = time.monotonic()
    run = ("run", "--rm", "--no-deps", "--no-TTY", "set-up-kafka", "python", "-c", PRINT_ALL)
    problems = list(_problems(installation.compose(*run)))
    kafka_messages.figures.seconds += time.monotonic() - began
    kafka_messages.raise_for(problems)


def _problems(lines: str) -> Iterator[str]:
    for line in lines.splitlines():
        topic, partition, offset, headers, value = json.loads(line)
        decoded = {name: _decoded(text) for name, text in headers.items()}
        yield from kafka_messages.validate(topic, partition, offset, decoded, _decoded(value))


def _decoded(text: str | None) -> bytes | None:
    return None if text is None else base64.b64decode(text)
