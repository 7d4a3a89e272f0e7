"""The rights of each service in Kafka: deploy/kafka-acls.toml, on a broker that is set up as compose.yaml has it."""

import json
import os
import secrets
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future
from itertools import chain

import pytest
from confluent_kafka import (
    Consumer,
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from django.conf import LazySettings, settings

from eventbus.acls import Rights, read_rights
from eventbus.deadletters.collector import GROUP as COLLECTOR
from eventbus.subscriptions import every_subscription, subscriptions_of, subscriptions_of_services
from signup_sync import participants
from tests.contract.test_compose import services
from tests.servers.composed import ComposedKafka, kafka_client
from tests.servers.process import LOOPBACK, ROOT
from tests.waiting import PATIENCE, eventually

FILE = ROOT / "deploy" / "kafka-acls.toml"
PREFIX = "rights."
PARTICIPANTS = (*participants.PARTICIPANTS, "scim")
SCIM_SERVERS = {"crm": "https://crm.example.org", "wiki": "https://wiki.example.org"}
DENIED = (
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
)


def expected_rights(service: str) -> Rights:
    """The rights that a participant's subscriptions need: its topics, its answers, its dead letters and its groups."""
    own = [each for name in settings.CONSUMED_TOGETHER.get(service, [service]) for each in subscriptions_of(name)]
    return Rights(
        read=[topic for each in own for topic in each.topics],
        write=[topic for each in own for topic in (*each.answers_to, *each.dead_letter_topics)],
        join=[each.group for each in own],
    )


def as_sets(rights: Rights) -> dict[str, set[str]]:
    return {name: {*getattr(rights, name)} for name in ("read", "write", "join", "watch")}


@pytest.fixture
def scim_servers(settings: LazySettings) -> None:
    settings.SCIM_SERVERS = SCIM_SERVERS
    settings.CONSUMED_TOGETHER = {"scim": [*SCIM_SERVERS]}
    added = dict.fromkeys(SCIM_SERVERS, "scimsvc.handlers.subscriptions_of_server")
    settings.EVENT_CONSUMERS = settings.EVENT_CONSUMERS | added


@pytest.fixture(autouse=True)
def search(settings: LazySettings) -> None:
    settings.EVENT_READERS = {"search": "eventsearch.indexing.subscription"}


@pytest.mark.usefixtures("scim_servers")
@pytest.mark.parametrize("service", PARTICIPANTS)
def test_a_participant_may_do_what_its_subscriptions_need_and_no_more(service):
    assert as_sets(read_rights(FILE)[service]) == as_sets(expected_rights(service))


@pytest.mark.parametrize("servers", ["scim_servers", None])
def test_auth_sees_every_topic_and_group_and_writes_none_of_the_participants_answers(request, servers):
    if servers:
        request.getfixturevalue(servers)
    rights = as_sets(read_rights(FILE)["auth"])
    every = list(every_subscription())
    own = [each for each in every if each.group == "auth"]
    asked = set(chain.from_iterable(each.topics for each in subscriptions_of_services()))
    assert rights["read"] == set(chain.from_iterable(each.every_topic for each in every))
    # Its requests, the replays of its own dead letters, and its own dead letters.
    assert rights["write"] == asked | set(chain.from_iterable(each.dead_letter_topics for each in own))
    assert rights["join"] == {COLLECTOR, *(each.group for each in own)}
    assert rights["watch"] >= {each.group for each in every if each not in own}
    assert read_rights(FILE).keys() == {"auth", "search", "viewer", *PARTICIPANTS}


@pytest.mark.usefixtures("scim_servers")
def test_the_search_may_read_what_it_indexes_and_writes_only_its_own_dead_letters():
    [own] = [each for each in every_subscription() if each.group == "search"]
    assert as_sets(read_rights(FILE)["search"]) == {
        "read": {*own.topics}, "write": {*own.dead_letter_topics}, "join": {"search"}, "watch": set(),
    }  # fmt: skip


@pytest.mark.usefixtures("scim_servers")
def test_kafka_ui_sees_every_topic_and_group_and_changes_nothing():
    rights, auth = as_sets(read_rights(FILE)["viewer"]), as_sets(read_rights(FILE)["auth"])
    assert rights["read"] == auth["read"]
    assert rights["watch"] >= {COLLECTOR, *(each.group for each in every_subscription())}
    assert rights["write"] == rights["join"] == set()


# --- On a broker ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def composed() -> Iterator[ComposedKafka]:
    admin = kafka_client(services()["set-up-kafka"])
    with ComposedKafka(services()["kafka"], admin=admin) as kafka:
        said = set_up(kafka)
        assert f"{3 + len(PARTICIPANTS)} users have their rights" in said.stdout, said.stderr
        # The command ends when the broker enforces the rights, which is a moment after the controller has stored them.
        assert {role: publish(kafka, role, "user.newUser.res") for role in PARTICIPANTS} == dict.fromkeys(PARTICIPANTS)
        yield kafka


def set_up(
    kafka: ComposedKafka, *, acls: object = FILE, role: str = "set-up-kafka"
) -> subprocess.CompletedProcess[str]:
    """`manage.py set_up_kafka` as a role of compose.yaml."""
    servers = ",".join(f"{name}={url}" for name, url in SCIM_SERVERS.items())
    given = services()[role]["environment"] | {"SCIM_SERVERS": servers}
    environment = given | {"PATH": os.environ["PATH"], "KAFKA_BOOTSTRAP_SERVERS": kafka.address, "KAFKA_PREFIX": PREFIX}
    return subprocess.run(
        [sys.executable, ROOT / "manage.py", "set_up_kafka", "--acls", str(acls)],
        env=environment, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


def client(kafka: ComposedKafka, role: str, **more: object) -> dict[str, object]:
    own = {"bootstrap.servers": kafka.address, "log_level": 0, "error_cb": lambda _: None}
    return {**own, **kafka_client(services()[role]), **more}


def publish(kafka: ComposedKafka, role: str, topic: str) -> int | None:
    """Return the code with which Kafka refuses a message; None if it accepts it. The producer is idempotent like the
    product's.
    """
    reports: list[KafkaError | None] = []
    producer = Producer(client(kafka, role, **{"enable.idempotence": True, "acks": "all"}))
    producer.produce(PREFIX + topic, b"{}", on_delivery=lambda error, _: reports.append(error))
    assert producer.flush(PATIENCE) == 0
    return reports[0].code() if reports[0] else None


def read(kafka: ComposedKafka, role: str, topic: str, *, group: str = "inspection") -> int | None:
    """Return the code with which Kafka refuses to read a topic; None if it permits it."""
    consumer = Consumer(client(kafka, role, **{"group.id": f"{PREFIX}{group}", "enable.auto.commit": False,
                                               "enable.partition.eof": True}))  # fmt: skip
    try:
        consumer.assign([TopicPartition(PREFIX + topic, 0, 0)])
        message = consumer.poll(PATIENCE)
        assert message is not None
        error = message.error()
        return error.code() if error and error.code() != KafkaError._PARTITION_EOF else None
    finally:
        consumer.close()


def ask_about(kafka: ComposedKafka, role: str, group: str, topic: str = "user.newUser.req") -> int | None:
    """Return the code with which Kafka refuses to report a group's offsets."""
    admin = AdminClient(client(kafka, role))
    place = ConsumerGroupTopicPartitions(PREFIX + group, [TopicPartition(PREFIX + topic, 0)])
    return refusal_of(*admin.list_consumer_group_offsets([place]).values())


def take_over(kafka: ComposedKafka, role: str, group: str, topic: str = "user.newUser.req") -> int | None:
    """Return the code with which Kafka refuses a commit for a group, which could make the group skip messages."""
    admin = AdminClient(client(kafka, role))
    place = ConsumerGroupTopicPartitions(PREFIX + group, [TopicPartition(PREFIX + topic, 0, 0)])
    return refusal_of(*admin.alter_consumer_group_offsets([place]).values())


def refusal_of(answer: Future[ConsumerGroupTopicPartitions]) -> int | None:
    try:
        [place] = answer.result(PATIENCE).topic_partitions or []
    except KafkaException as error:
        return error.args[0].code()
    return place.error.code() if place.error else None


@pytest.mark.needs("kafka")
@pytest.mark.usefixtures("scim_servers")
def test_the_search_reads_what_it_indexes_and_publishes_its_own_dead_letters_only(composed):
    [search] = [each for each in every_subscription() if each.group == "search"]
    seen = {topic: read(composed, "search", topic, group="search") for topic in search.topics}
    assert seen == dict.fromkeys(search.topics)
    letters = search.dead_letter_topics
    assert {topic: publish(composed, "search", topic) for topic in letters} == dict.fromkeys(letters)
    for topic in search.topics:
        assert publish(composed, "search", topic) in DENIED, topic


@pytest.mark.needs("kafka")
@pytest.mark.usefixtures("scim_servers")
@pytest.mark.parametrize("role", PARTICIPANTS)
def test_a_participant_publishes_its_answers_and_its_own_dead_letters_only(composed, role):
    other = "customer" if role == "chat" else "chat"
    assert {topic: publish(composed, role, topic) for topic in expected_rights(role).write} == dict.fromkeys(
        expected_rights(role).write
    )
    for topic in (
        "user.newUser.req",
        "user.reconcile.req",
        f"user.newUser.req.{other}.dlt",
        "user.newUser.res.auth.dlt",
    ):
        assert publish(composed, role, topic) in DENIED, topic


@pytest.mark.needs("kafka")
@pytest.mark.parametrize("role", PARTICIPANTS)
def test_a_participant_reads_no_topics_but_its_requests(composed, role):
    for topic in (
        "user.newUser.res",
        "user.reconcile.res",
        "user.newUser.req.chat.dlt",
        "user.newUser.req.customer.dlt",
    ):
        assert read(composed, role, topic) in DENIED, topic


@pytest.mark.needs("kafka")
@pytest.mark.parametrize("group", ["auth", "customer", "customer-reconcile", "dead-letters", "inspection"])
def test_chat_neither_sees_nor_moves_the_groups_of_others(composed, group):
    assert ask_about(composed, "chat", group) in DENIED
    assert take_over(composed, "chat", group) in DENIED


@pytest.mark.needs("kafka")
def test_a_service_sees_and_moves_its_own_groups(composed):
    for role, group, topic in (
        ("chat", "chat", "user.newUser.req"),
        ("customer", "customer-reconcile", "user.reconcile.req"),
        ("auth-results", "auth", "user.newUser.res"),
        ("dead-letters", "dead-letters", "user.newUser.req.chat.dlt"),
    ):
        # At the first request, Kafka creates its topic of offsets, and may not know the group's coordinator at once.
        eventually(lambda about=(role, group, topic): take_over(composed, *about) is None)
        assert ask_about(composed, role, group, topic) is None


@pytest.mark.needs("kafka")
def test_auth_reads_every_topic_and_asks_about_every_group_and_takes_over_none(composed):
    for topic in read_rights(FILE)["auth"].read:
        assert read(composed, "web", topic) is None, topic
    for group in ("chat", "chat-reconcile", "customer", "customer-reconcile"):
        assert ask_about(composed, "relay", group) is None
        assert take_over(composed, "relay", group) in DENIED
    assert publish(composed, "web", "user.newUser.req") is None
    assert publish(composed, "web", "user.reconcile.res") in DENIED
    assert publish(composed, "web", "user.newUser.req.chat.dlt") in DENIED


@pytest.mark.needs("kafka")
@pytest.mark.parametrize("role", ["web", "relay", *PARTICIPANTS])
def test_only_the_administrator_creates_topics_and_grants_rights(composed, role):
    admin = AdminClient(client(composed, role))
    [made] = admin.create_topics([NewTopic(f"{PREFIX}more", 1)]).values()
    with pytest.raises(KafkaException) as refused:
        made.result(PATIENCE)
    assert refused.value.args[0].code() in DENIED
    [deleted] = admin.delete_topics([f"{PREFIX}user.newUser.req"]).values()
    with pytest.raises(KafkaException) as refused:
        deleted.result(PATIENCE)
    assert refused.value.args[0].code() in DENIED
    said = set_up(composed, role=role)
    assert said.returncode == 1
    assert "KAFKA_CLIENT_CONFIG" in said.stderr


@pytest.mark.needs("kafka")
@pytest.mark.parametrize("changed", [{"security.protocol": "PLAINTEXT"}, {"sasl.password": "wrong"}])
def test_nobody_gets_in_without_a_password(composed, changed):
    with pytest.raises(KafkaException):
        AdminClient(client(composed, "set-up-kafka", **changed)).list_topics(timeout=2)


def answers_a_stranger(port: int) -> bool:
    """Whether a broker or controller answers DescribeCluster (version 0) to an unauthenticated client."""
    header = struct.pack(">hhih", 60, 0, 1, -1) + b"\0"
    body = b"\0\0"
    with socket.create_connection((LOOPBACK, port), timeout=PATIENCE) as connection:
        connection.sendall(struct.pack(">i", len(header + body)) + header + body)
        try:
            return connection.recv(1) != b""
        except ConnectionResetError:
            return False


@pytest.mark.needs("kafka")
def test_neither_broker_nor_controller_answers_a_stranger(composed, kafka):
    """Any client that may talk to the controller may change every right."""
    assert answers_a_stranger(kafka.port)
    assert answers_a_stranger(kafka.controller_port)
    assert not answers_a_stranger(composed.port)
    assert not answers_a_stranger(composed.controller_port)


@pytest.mark.needs("kafka")
def test_a_right_that_was_removed_from_the_file_is_revoked(composed, tmp_path):
    wider = tmp_path / "acls.toml"
    wider.write_text(FILE.read_text().replace("[scim]\n", '[scim]\nwatch = ["customer"]\n'))
    assert "1 added, 0 revoked" in set_up(composed, acls=wider).stdout
    assert ask_about(composed, "scim", "customer") is None
    assert "0 added, 1 revoked" in set_up(composed).stdout
    assert ask_about(composed, "scim", "customer") in DENIED
    assert "0 added, 0 revoked" in set_up(composed).stdout


@pytest.mark.needs("kafka")
@pytest.mark.parametrize(
    ("content", "said"),
    [("[chat]\nreads = []", "unknown field"), ("chat = 1", "object"), ("[chat", "can't be read")],
)
def test_an_unreadable_file_changes_nothing_and_is_reported_with_the_reason(composed, tmp_path, content, said):
    wrong = tmp_path / "acls.toml"
    wrong.write_text(content)
    done = set_up(composed, acls=wrong)
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert said in done.stderr


@pytest.mark.needs("kafka")
def test_a_cluster_that_checks_no_rights_is_reported(kafka):
    environment = services()["set-up-kafka"]["environment"] | {
        "PATH": os.environ["PATH"], "KAFKA_BOOTSTRAP_SERVERS": kafka.address, "KAFKA_CLIENT_CONFIG": json.dumps({}),
        "KAFKA_PREFIX": f"unchecked-{secrets.token_hex(4)}.",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, ROOT / "manage.py", "set_up_kafka", "--acls", FILE],
        env=environment, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 1
    assert "authorizer.class.name" in done.stderr
