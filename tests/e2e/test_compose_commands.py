"""Every command of compose.yaml, started outside containers with the environment that compose gives it: each role has
its own user of PostgreSQL, Kafka and Redis, with the rights that these have there."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from confluent_kafka import Producer

from tests.contract import kafka_messages
from tests.contract.test_compose import AUTH_WORKERS, PARTICIPANTS, WEB, services
from tests.servers import PostgresqlServer, ScimTestServer, free_port
from tests.servers.composed import ComposedKafka, ComposedRedis, kafka_client
from tests.servers.process import LOOPBACK, ROOT, Process
from tests.waiting import eventually

pytestmark = [pytest.mark.needs("application", "postgresql", "kafka")]

LASTING = (*WEB, *AUTH_WORKERS, *PARTICIPANTS, "scim")
SERVICES = ("auth", *PARTICIPANTS, "crm")
# Words with which PostgreSQL, Kafka and Redis deny something.
REFUSALS = ("permission denied", "noperm", "authorization failed", "insufficientprivilege", "noauth")


class Composed:
    """The servers of compose.yaml, and its roles with their own environments."""

    def __init__(self, stack: ExitStack, directory: Path) -> None:
        self._stack = stack
        self._directory = directory
        self.postgresql = stack.enter_context(PostgresqlServer())
        self.kafka = stack.enter_context(
            ComposedKafka(services()["kafka"], admin=kafka_client(services()["set-up-kafka"]))
        )
        self.redis = stack.enter_context(ComposedRedis(services()["redis"]))
        self.crm = stack.enter_context(ScimTestServer())
        self.ports = {name: free_port() for name in LASTING}
        self.roles: dict[str, Process] = {}

    def environment_of(self, name: str) -> dict[str, str]:
        """The environment of the role in its container, with the addresses that the servers have here."""
        here = {
            "@postgres:5432/": f"@{self.postgresql.address}/",
            "@redis:6379/": f"@{self.redis.address}/",
            "kafka:9092": self.kafka.address,
        }
        given: dict[str, str] = services()[name]["environment"]
        for container, address in here.items():
            given = {key: value.replace(container, address) for key, value in given.items()}
        # Every role knows the SCIM server, and only one has its token.
        scim = self.crm.env if "SCIM_TOKENS" in given else {"SCIM_SERVERS": self.crm.env["SCIM_SERVERS"]}
        return given | {
            **scim,
            "PATH": os.environ["PATH"],
            "HEALTH_HOST": LOOPBACK,
            "HEALTH_PORT": str(self.ports.get(name, 0)),
            "TRUSTED_PROXIES": LOOPBACK,
        }

    def create_databases(self) -> None:
        with psycopg.connect(self.postgresql.url("postgres"), autocommit=True) as connection:
            for service in ("auth", *PARTICIPANTS, "scim"):
                connection.execute(f'DROP DATABASE "{service}"')
        place = {"PATH": os.environ["PATH"], "PGHOST": LOOPBACK, "PGPORT": str(self.postgresql.port)}
        script = ROOT / "deploy" / "create-databases.sh"
        subprocess.run([script], env=services()["databases"]["environment"] | place, check=True, timeout=60)

    def run(self, name: str, *command: str) -> str:
        """Runs a command of manage.py, by default the role's own, to its end, and return its output."""
        done = subprocess.run(
            [sys.executable, "manage.py", *command] if command else self._command_of(name),
            cwd=ROOT, env=self.environment_of(name), capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def start(self) -> None:
        self.create_databases()
        self.run("migrate")
        self.run("set-up-kafka")
        for name in LASTING:
            log = self._directory / f"{name}.log"
            self.roles[name] = Process(name, self._command_of(name), env=self.environment_of(name), log=log)
            self.roles[name].start()
            self._stack.callback(self.roles[name].kill)
        for name, process in self.roles.items():
            process.wait_ready(lambda name=name: self._is_healthy(name), 60)

    def _command_of(self, name: str) -> list[str]:
        _, *rest = services()[name]["command"]
        rest = [part.replace("0.0.0.0", LOOPBACK) for part in rest]
        rest = [part.replace("/etc/kafka-acls.toml", "deploy/kafka-acls.toml") for part in rest]
        if "serve" in rest:
            rest += ["--port", str(self.ports[name])]
        return [sys.executable, *rest]

    def _is_healthy(self, name: str) -> bool:
        """Its own health check, at the port that it has here."""
        _, *command = services()[name]["healthcheck"]["test"]
        port = self.ports[name]
        command = [part.replace(":8000/", f":{port}/").replace(":8001/", f":{port}/") for part in command]
        command[0] = sys.executable
        return subprocess.run(command, capture_output=True, check=False, timeout=30).returncode == 0

    def sign_up(self, user_id: str) -> dict[str, str]:
        """Signs somebody up at auth; the status of each light in the end."""
        form = {"userId": user_id, "userPw": "correct horse 9", "email": f"{user_id}@example.org", "userName": "C"}
        answer = subprocess.run(
            ["curl", "-sS", "-m", "30", "-N", "-X", "POST", f"http://{LOOPBACK}:{self.ports['auth']}/user",
             "-H", "Content-Type: application/json", "-H", "Accept: text/event-stream",
             "-H", "X-Forwarded-Proto: https", "-d", json.dumps(form)],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        last = json.loads(answer.stdout.rsplit("data: ", 1)[1])
        assert last["complete"]
        return {service: light["status"] for service, light in last["services"].items()}

    @property
    def kafka_config(self) -> dict[str, Any]:
        return {"bootstrap.servers": self.kafka.address, **kafka_client(services()["web"])}

    def publish(self, topic: str, value: bytes) -> None:
        """Publishes as the web processes may."""
        kafka_messages.is_meant(topic, value)
        reports: list[object] = []
        producer = Producer(self.kafka_config)
        producer.produce(topic, value, on_delivery=lambda error, _: reports.append(error))
        producer.flush(30)
        assert reports == [None]

    def stop(self) -> list[int]:
        return [process.stop() for process in self.roles.values()]


@pytest.fixture(scope="module")
def composed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Composed]:
    with ExitStack() as stack:
        composed = Composed(stack, tmp_path_factory.mktemp("composed"))
        composed.start()
        stack.enter_context(kafka_messages.validated(composed.kafka_config))
        yield composed
        assert composed.stop() == [0] * len(LASTING)


def test_every_command_starts_and_is_healthy_and_a_signup_gets_its_lights(composed: Composed):
    assert composed.sign_up(f"composed-{uuid4().hex[:8]}") == dict.fromkeys(SERVICES, "SUCCESS")
    assert len(composed.crm.users) == 1


def test_dead_letters_are_collected_and_replayed(composed: Composed):
    readers = len((*PARTICIPANTS, "crm"))
    composed.publish("user.newUser.req", b"no event")
    eventually(lambda: composed.run("web", "dead_letters", "list").count("user.newUser.req") == readers)

    composed.run("web", "dead_letters", "replay", "--all-waiting")

    # All of them put it aside again.
    eventually(lambda: composed.run("web", "dead_letters", "list").count("user.newUser.req") >= 2 * readers)


def test_participants_answer_a_reconcile(composed: Composed):
    report = json.loads(composed.run("web", "reconcile", "--json").splitlines()[-1])
    assert {service: each["answered"] for service, each in report["services"].items()} == dict.fromkeys(
        (*PARTICIPANTS, "crm"), True
    )


def test_the_operators_pages_see_topics_groups_and_instances(composed: Composed):
    code = """
from eventbus.inspection.groups import read_groups
from eventbus.inspection.inspector import Inspector
from eventbus.subscriptions import every_subscription
from django.conf import settings
from runtime.processes.instances import read_instances
import json
with Inspector() as inspector:
    topics = inspector.topics()
    newest = len(inspector.newest('user.newUser.req').messages)
groups = [(group.name, group.membership.state, group.problem) for group in read_groups(topics)]
settings.EVENT_READERS = {'search': 'eventsearch.indexing.subscription'}
known = [topic for each in every_subscription() for topic in each.every_topic]
roles = [seen.told.role for seen in read_instances()]
print(json.dumps([[topic.name for topic in topics], known, newest, groups, roles]))
"""
    topics, known, newest, groups, roles = json.loads(
        composed.run("web", "shell", "--no-imports", "-c", code).splitlines()[-1]
    )
    assert {"user.newUser.req", "user.newUser.req.crm.dlt", "user.newUser.res"} < {*topics} == {*known}
    assert newest > 0
    assert [problem for _, _, problem in groups] == [""] * len(groups)
    assert {name for name, state, _ in groups if state == "Stable"} == {
        *SERVICES, *(f"{service}-reconcile" for service in (*PARTICIPANTS, "crm")), "dead-letters",
    }  # fmt: skip
    # Each role may say in Redis that it runs; that of the SCIM servers also says so for each of them.
    assert len(roles) == len(LASTING) + 1


def test_purge_may_delete(composed: Composed):
    assert "deleted" in composed.run("purge", "purge")


def test_no_role_is_refused_anything(composed: Composed):
    """Neither PostgreSQL, Kafka nor Redis has denied a role what it wanted."""
    for name, process in composed.roles.items():
        log = process.log().lower()
        for word in REFUSALS:
            assert word not in log, f"{name}: {log[-3000:]}"
