"""Rows that a run adds to the databases beforehand and reads from them afterwards, without the product's code."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
from confluent_kafka import Consumer, TopicPartition

from signup_sync.participants import PARTICIPANTS
from tests.chaos.judge import ChangeRow, Evidence, SignUpRow, UserRow
from tests.chaos.noise import ANSWERS, REQUESTS, Noise
from tests.chaos.people import Person, folded
from tests.chaos.story import Story
from tests.client import read_topic
from tests.stack import TABLES, Stack

# The consumer groups whose dead letters must contain the poison of each topic.
READERS = {REQUESTS: PARTICIPANTS, ANSWERS: ("auth",)}
COLLECTOR = "dead-letters"
USER = "user_id, user_id_key, email, user_name, role"


def introduce(stack: Stack, people: Sequence[Person]) -> None:
    """Makes the rows of people that one participant already had, by the userId or by the email."""
    for service in PARTICIPANTS:
        rows = []
        for person in people:
            if person.known_to == service:
                user_id = person.user_id if person.known_by == "userId" else f"other-{person.signup_id.hex[:12]}"
                email = person.email if person.known_by == "email" else f"other-{person.email}"
                rows.append((user_id, folded(user_id), email))
        with psycopg.connect(stack.env[f"{service.upper()}_DATABASE_URL"]) as connection:
            connection.cursor().executemany(
                f"INSERT INTO {TABLES[service]} ({USER}, is_active, created_at) "
                "VALUES (%s, %s, %s, 'Known', 'ROLE_USER', true, now())",
                rows,
            )


def pending(stack: Stack) -> int:
    """The number of sign-ups with an orange light."""
    [(count,)] = stack.query("auth", "SELECT count(*) FROM authsvc_signup WHERE pending_count > 0")
    return int(count)


def unread(stack: Stack) -> int:
    """The number of messages that the consumers, and then the collector of dead letters, have not committed yet."""
    read = [(topic, group) for topic, groups in READERS.items() for group in groups]
    read += [(letters(*each), COLLECTOR) for each in read]
    prefix = stack.env["KAFKA_PREFIX"]
    return sum(_lag(stack, prefix + topic, prefix + group) for topic, group in read)


def _lag(stack: Stack, topic: str, group: str) -> int:
    consumer = Consumer({"bootstrap.servers": stack.env["KAFKA_BOOTSTRAP_SERVERS"], "group.id": group})
    try:
        partitions = [
            TopicPartition(topic, each) for each in consumer.list_topics(topic, timeout=5).topics[topic].partitions
        ]
        done = {each.partition: max(each.offset, 0) for each in consumer.committed(partitions, timeout=5)}
        return sum(consumer.get_watermark_offsets(each, timeout=5)[1] - done[each.partition] for each in partitions)
    finally:
        consumer.close()


def collect(stack: Stack, stories: Mapping[UUID, Story], noise: Noise) -> Evidence:
    rows = stack.query("auth", "SELECT kind, id, owner_signup_id, lights, version FROM authsvc_signup")
    users = stack.query("auth", f"SELECT owner_signup_id, NULL, {USER} FROM authsvc_user")
    kept = stack.query("auth", "SELECT letter_topic, key FROM eventbus_deadletter")
    topics = {letters(topic, group): topic for topic in READERS for group in READERS[topic]}
    return Evidence(
        stories=stories,
        signups=[SignUpRow(*row) for kind, *row in rows if kind == "signUp"],
        users=[UserRow(*row) for row in users],
        copies={
            service: [
                UserRow(*row)
                for row in stack.query(
                    service,
                    f"SELECT owner_signup_id, signup_id, {USER} FROM {TABLES[service]} WHERE removed_at IS NULL",
                )
            ]
            for service in PARTICIPANTS
        },
        changes=[ChangeRow(kind, *row) for kind, *row in rows if kind != "signUp"],
        tombstones={
            "auth": _owners(stack, "auth", "authsvc_removedaccount"),
            **{
                service: _owners(stack, service, f"{TABLES[service]} WHERE removed_at IS NOT NULL")
                for service in PARTICIPANTS
            },
        },
        poison={each: noise.poison[topic] for each, topic in topics.items()},
        dead={each: [message.key or b"" for message in in_topic(stack, each)] for each in topics},
        kept={each: {key or b"" for topic, key in kept if topic == each} for each in topics},
    )


def _owners(stack: Stack, service: str, rows: str) -> set[UUID]:
    return {owner for (owner,) in stack.query(service, f"SELECT owner_signup_id FROM {rows}")}


def letters(topic: str, group: str) -> str:
    return f"{topic}.{group}.dlt"


def in_topic(stack: Stack, topic: str) -> list[Any]:
    return read_topic(stack.env["KAFKA_BOOTSTRAP_SERVERS"], stack.env["KAFKA_PREFIX"] + topic)


def traffic_of(stack: Stack, signup_ids: Sequence[UUID]) -> dict[UUID, list[str]]:
    """The messages that were sent about these sign-ups, in the order of each partition."""
    found: dict[UUID, list[str]] = {signup_id: [] for signup_id in signup_ids}
    for topic in READERS:
        for message in in_topic(stack, topic):
            for signup_id, texts in found.items():
                if str(signup_id).encode() in message.value:
                    texts.append(f"{topic} {message.value.decode(errors='replace')}")
    return found


def keep_logs(stack: Stack, others: Sequence[Path], directory: Path) -> None:
    """Copies the logs of all processes out of the directories that go with the run."""
    directory.mkdir(parents=True, exist_ok=True)
    for path in [*stack.directory.glob("*.log"), *others]:
        if path.exists():
            (directory / path.name).write_bytes(path.read_bytes())
