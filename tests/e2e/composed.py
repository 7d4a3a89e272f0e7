"""The servers and roles of compose.yaml without containers, with the environment that compose gives them."""

import json
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
from confluent_kafka import Producer

from tests.contract import kafka_messages
from tests.contract.documents import states_of
from tests.contract.test_compose import AUTH_WORKERS, PARTICIPANTS, WEB, services
from tests.servers import PostgresqlServer, ScimTestServer, free_port
from tests.servers.composed import ComposedKafka, ComposedRedis, kafka_client
from tests.servers.process import LOOPBACK, ROOT, Process

LASTING = (*WEB, *AUTH_WORKERS, *PARTICIPANTS, "scim")
PASSWORD = "correct horse 9"


class Composed:
    """The servers of compose.yaml, and its roles with their own environments."""

    def __init__(self, stack: ExitStack, directory: Path) -> None:
        self._stack = stack
        self._directory = directory
        # compose.yaml at the last start of the roles.
        self.services = services()
        self.postgresql = stack.enter_context(PostgresqlServer())
        self.kafka = stack.enter_context(
            ComposedKafka(self.services["kafka"], admin=kafka_client(self.services["set-up-kafka"]))
        )
        self.redis = stack.enter_context(ComposedRedis(self.services["redis"]))
        self.crm = stack.enter_context(ScimTestServer())
        self.ports = {name: free_port() for name in LASTING}
        self.roles: dict[str, Process] = {}

    def environment_of(self, name: str) -> dict[str, str]:
        """The environment of the role's container, with the servers' addresses in this test."""
        here = {
            "@postgres:5432/": f"@{self.postgresql.address}/",
            "@redis:6379/": f"@{self.redis.address}/",
            "kafka:9092": self.kafka.address,
        }
        given: dict[str, str] = self.services[name]["environment"]
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
        self.run_databases()
        self.postgresql.require_passwords()

    def run_databases(self) -> None:
        """The service `databases`."""
        place = {"PATH": os.environ["PATH"], "PGHOST": LOOPBACK, "PGPORT": str(self.postgresql.port)}
        script = ROOT / "deploy" / "create-databases.sh"
        subprocess.run([script], env=self.services["databases"]["environment"] | place, check=True, timeout=60)

    def run(self, name: str, *command: str) -> str:
        """Run a command of manage.py, by default the role's own, and return its output."""
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
        self._wait_until_healthy(*self.roles)

    def up(self, *names: str) -> list[str]:
        """Replace the roles whose environment in compose.yaml has changed since their start, and return them."""
        if "kafka" in names:
            self.kafka.up(self.services["kafka"], admin=kafka_client(self.services["set-up-kafka"]))
        if "redis" in names:
            self.redis.up(self.services["redis"])
        outdated = [
            name for name in names
            if name in self.roles and self.roles[name].running and self.roles[name].env != self.environment_of(name)
        ]  # fmt: skip
        for name in outdated:
            assert self.roles[name].stop() == 0
            self.roles[name].env = self.environment_of(name)
            self.roles[name].start()
        self._wait_until_healthy(*outdated)
        return outdated

    def _wait_until_healthy(self, *names: str) -> None:
        for name in names:
            self.roles[name].wait_ready(lambda name=name: self._is_healthy(name), 60)

    def _command_of(self, name: str) -> list[str]:
        _, *rest = self.services[name]["command"]
        rest = [part.replace("0.0.0.0", LOOPBACK) for part in rest]
        rest = [part.replace("/etc/kafka-acls.toml", "deploy/kafka-acls.toml") for part in rest]
        if "serve" in rest:
            rest += ["--port", str(self.ports[name])]
        return [sys.executable, *rest]

    def _is_healthy(self, name: str) -> bool:
        """Run the container's own health check, at the port used here."""
        _, *command = self.services[name]["healthcheck"]["test"]
        port = self.ports[name]
        command = [part.replace(":8000/", f":{port}/").replace(":8001/", f":{port}/") for part in command]
        command[0] = sys.executable
        return subprocess.run(command, capture_output=True, check=False, timeout=30).returncode == 0

    def sign_up(self, user_id: str) -> dict[str, str]:
        """Sign a person up at auth, and return the final status of each light."""
        form = {"userId": user_id, "userPw": PASSWORD, "email": f"{user_id}@example.org", "userName": "C"}
        answer = subprocess.run(
            ["curl", "-sS", "-m", "30", "-N", "-X", "POST", f"http://{LOOPBACK}:{self.ports['auth']}/user",
             "-H", "Content-Type: application/json", "-H", "Accept: text/event-stream",
             "-H", "X-Forwarded-Proto: https", "-d", json.dumps(form)],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        last = states_of(answer.stdout)[-1]
        assert last["complete"]
        return {service: light["status"] for service, light in last["services"].items()}

    @property
    def kafka_config(self) -> dict[str, Any]:
        return {"bootstrap.servers": self.kafka.address, **kafka_client(self.services["web"])}

    def publish(self, topic: str, value: bytes) -> None:
        """Publish with the rights of the web processes."""
        kafka_messages.is_meant(topic, value)
        reports: list[object] = []
        producer = Producer(self.kafka_config)
        producer.produce(topic, value, on_delivery=lambda error, _: reports.append(error))
        producer.flush(30)
        assert reports == [None]

    def stop(self) -> list[int]:
        return [process.stop() for process in self.roles.values()]
