"""`manage.py consume_events` as a separate process, on the embedded broker and SQLite."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from django.conf import settings
from django.core.management import call_command
from django.core.management.base import CommandError

from eventbus.embedded import EmbeddedBroker
from eventbus.management.commands.consume_events import consume
from eventbus.messages import HandledBatch, Incoming, Subscription
from runtime.processes.roles import RunningRole
from tests.broker import RecordingHandler, new_topic, put
from tests.servers.process import LOOPBACK, ROOT, Process, free_port, http_status
from tests.waiting import eventually

MANAGE = (sys.executable, str(ROOT / "manage.py"))


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return os.environ | {"DATA_DIR": str(tmp_path), "HEALTH_PORT": str(free_port()), "KAFKA_EMBEDDED": "true"}


@pytest.fixture
def consumer(environment: dict[str, str], tmp_path: Path) -> Iterator[Process]:
    process = Process("chat", [*MANAGE, "consume_events", "chat"], log=tmp_path / "log", env=environment)
    yield process
    process.kill()


def stop_in_time(process: Process) -> None:
    began = time.monotonic()
    assert process.stop() == 0
    assert time.monotonic() - began < 5
    assert "Traceback" not in process.log()


def test_a_consumer_waits_for_its_tables_then_for_its_partitions_and_is_then_ready(consumer, broker: EmbeddedBroker):
    port = int(consumer.env["HEALTH_PORT"])
    consumer.env["KAFKA_BOOTSTRAP_SERVERS"] = broker.bootstrap_servers
    consumer.start()
    eventually(lambda: "waits for its database: chatsvc has unapplied migrations" in consumer.log())
    assert http_status(port, "/health/live") == 200
    assert http_status(port, "/health/ready") == 503
    subprocess.run([*MANAGE, "migrate_all", "--verbosity", "0"], env=consumer.env, check=True)
    consumer.wait_ready(lambda: http_status(port, "/health/ready") == 200, 30)
    assert "consuming user.newUser.req, user.changeUser.req, user.removeUser.req as group chat" in consumer.log()
    assert (
        "assigned partitions user.changeUser.req[0, 1, 2, 3], user.newUser.req[0, 1, 2, 3], user.removeUser.req[0"
        in consumer.log()
    )
    stop_in_time(consumer)


def test_a_consumer_that_waits_for_kafka_still_ends_on_a_stop_request(consumer):
    consumer.env["KAFKA_BOOTSTRAP_SERVERS"] = f"{LOOPBACK}:{free_port()}"
    subprocess.run([*MANAGE, "migrate_all", "--verbosity", "0"], env=consumer.env, check=True)
    consumer.start()
    eventually(lambda: f"waits for Kafka at {consumer.env['KAFKA_BOOTSTRAP_SERVERS']}" in consumer.log())
    stop_in_time(consumer)


def test_an_unknown_service_is_refused_with_the_known_ones():
    with pytest.raises(CommandError, match=r"invalid choice: 'nobody'.*auth.*chat.*customer"):
        call_command("consume_events", "nobody")


def test_the_help_describes_the_command_and_its_services(capsys):
    with pytest.raises(SystemExit) as ended:
        call_command("consume_events", "--help")
    assert ended.value.code == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "Run the Kafka consumers of a service" in said
    assert f"{{{','.join(settings.EVENT_CONSUMERS)}}}" in said


def test_of_several_consumers_one_that_ends_by_an_error_ends_the_others_and_the_command(embedded):
    good, bad = (new_topic() for _ in range(2))

    def fail(batch: Sequence[Incoming]) -> HandledBatch:
        raise SystemExit("a bug that no batch is to blame for")

    put(bad, b"1")
    role = RunningRole("several")
    with pytest.raises(SystemExit, match="no batch is to blame for"):
        consume((Subscription("good", (good,), RecordingHandler()), Subscription("bad", (bad,), fail)), role)
    assert role.stop.is_set()


def test_each_of_several_consumers_reads_its_topic(embedded):
    topics = [new_topic() for _ in range(2)]
    handlers = [RecordingHandler() for _ in topics]
    role = RunningRole("several")
    subscriptions = [Subscription(topic, (topic,), handler) for topic, handler in zip(topics, handlers, strict=True)]
    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(consume, subscriptions, role)
        try:
            for topic in topics:
                put(topic, topic.encode())
            eventually(lambda: [handler.values for handler in handlers] == [[each.encode()] for each in topics])
            assert role.heartbeat.is_ready
        finally:
            role.stop.set()
        running.result()
