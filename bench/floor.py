"""The floor: the cost of a sign-up's commits and messages alone, one after another.

No Django, no HTTP, no hash: auth commits, the request is produced and acknowledged, chat and customer read it, commit
and answer, auth reads the answers and commits, and Redis is written and wakes a subscriber.
"""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

import psycopg
import redis
from confluent_kafka import Consumer, KafkaError, Message, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from psycopg.types.json import Jsonb

# Timeout in seconds for one step.
PATIENCE = 20.0
PARTICIPANTS = ("chat", "customer")
LIGHTS = {"auth": "SUCCESS", "chat": "PENDING", "customer": "PENDING"}


class Floor:
    """The floor's own tables, topics and key on the servers of a run."""

    def __init__(self, databases: Mapping[str, str], bootstrap_servers: str, redis_url: str) -> None:
        """`databases` maps auth, chat and customer to the URLs of their databases."""
        self._open = ExitStack()
        self._name = f"floor.{uuid4().hex[:12]}"
        self._databases = {name: self._open.enter_context(_database(url)) for name, url in databases.items()}
        self._producer = Producer(
            {"bootstrap.servers": bootstrap_servers, "acks": "all", "enable.idempotence": True, "linger.ms": 0}
        )
        topics = [f"{self._name}.req", f"{self._name}.res"]
        admin = AdminClient({"bootstrap.servers": bootstrap_servers})
        for created in admin.create_topics([NewTopic(topic, 4, 1) for topic in topics]).values():
            created.result(PATIENCE)
        self._readers = {
            name: self._open.enter_context(_reader(bootstrap_servers, f"{self._name}.{name}", topics[name == "auth"]))
            for name in databases
        }
        self._redis = redis.Redis.from_url(redis_url)
        self._open.callback(self._redis.close)
        self._subscriber = self._open.enter_context(
            self._redis.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]
        )
        self._subscriber.subscribe(self._name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._open.close()

    def sign_ups(self, n: int) -> list[float]:
        """Return the milliseconds of each of `n` sign-ups, run one after another."""
        return [self._sign_up() for _ in range(n)]

    def _sign_up(self) -> float:
        begun = time.perf_counter()
        event = {"signupId": str(uuid4()), "userId": uuid4().hex, "email": f"{uuid4().hex}@example.org"}
        with self._databases["auth"].transaction() as transaction:
            _insert_user(transaction.connection, event)
            transaction.connection.execute(
                "INSERT INTO floor_signup VALUES (%s, %s, %s)", (event["signupId"], event["userId"], Jsonb(LIGHTS))
            )
        self._produce("req", event)
        for name in PARTICIPANTS:
            request = self._consume(name)
            with self._databases[name].transaction() as transaction:
                _insert_user(transaction.connection, request)
            self._produce("res", request | {"service": name, "status": "SUCCESS"})
        answers = [self._consume("auth") for _ in PARTICIPANTS]
        lights = LIGHTS | {answer["service"]: answer["status"] for answer in answers}
        with self._databases["auth"].transaction() as transaction:
            transaction.connection.execute(
                "UPDATE floor_signup SET lights = %s WHERE id = %s", (Jsonb(lights), event["signupId"])
            )
        self._wake(event["signupId"], json.dumps(lights))
        return (time.perf_counter() - begun) * 1000

    def _produce(self, topic: str, value: Mapping[str, str]) -> None:
        failures: list[KafkaError | None] = []
        self._producer.produce(
            f"{self._name}.{topic}",
            json.dumps(value),
            key=value["userId"],
            on_delivery=lambda error, _: failures.append(error),
        )
        while not failures:
            self._producer.poll(PATIENCE)
        if failures[0] is not None:
            raise RuntimeError(f"the floor's message was not accepted: {failures[0]}")

    def _consume(self, name: str) -> dict[str, str]:
        value: dict[str, str] = json.loads(_next(self._readers[name]).value() or b"")
        return value

    def _wake(self, key: str, state: str) -> None:
        with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.set(f"{self._name}:{key}", state, ex=600)
            pipeline.publish(self._name, state)
            pipeline.execute()
        end = time.monotonic() + PATIENCE
        while self._subscriber.get_message(timeout=PATIENCE) is None:
            if time.monotonic() > end:
                raise RuntimeError("the floor's subscriber received nothing")


def floor_databases(env: Mapping[str, str]) -> dict[str, str]:
    """Return the database URLs from an installation's settings."""
    return {name: env[f"{name.upper()}_DATABASE_URL"] for name in ("auth", *PARTICIPANTS)}


@contextmanager
def _database(url: str) -> "Iterator[psycopg.Connection[Any]]":
    """Connect and create the tables of the steps, with few columns but as many unique keys as in the product."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE IF NOT EXISTS floor_user"
            " (id bigserial PRIMARY KEY, user_id text UNIQUE, email text UNIQUE, signup_id uuid UNIQUE)"
        )
        connection.execute("CREATE TABLE IF NOT EXISTS floor_signup (id uuid PRIMARY KEY, user_id text, lights jsonb)")
        yield connection


def _insert_user(connection: "psycopg.Connection[Any]", event: Mapping[str, str]) -> None:
    connection.execute(
        "INSERT INTO floor_user (user_id, email, signup_id) VALUES (%s, %s, %s)",
        (event["userId"], event["email"], event["signupId"]),
    )


@contextmanager
def _reader(bootstrap_servers: str, group: str, topic: str) -> Iterator[Consumer]:
    """Yield a consumer after its partitions have been assigned."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap_servers,
            "group.id": group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    try:
        consumer.subscribe([topic])
        end = time.monotonic() + PATIENCE
        while not consumer.assignment():
            if time.monotonic() > end:
                raise RuntimeError(f"{group} got no partitions")
            consumer.poll(0.1)
        yield consumer
    finally:
        consumer.close()


def _next(consumer: Consumer) -> Message:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        message = consumer.poll(PATIENCE)
        if message is not None and not message.error():
            return message
    raise RuntimeError("the floor's message did not arrive")
