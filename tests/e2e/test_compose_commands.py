"""Every command of compose.yaml, started outside containers with the environment that compose gives it: each role has
its own user of PostgreSQL, Kafka and Redis, with the rights that these have there."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from http.client import HTTPConnection
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from uuid import uuid4

import psycopg
import pytest
import redis
from confluent_kafka import Producer

from tests.contract import kafka_messages
from tests.contract.test_compose import AUTH_WORKERS, ENVIRONMENT, PARTICIPANTS, WEB, resolved, services
from tests.operations_guide import commands_after
from tests.servers import PostgresqlServer, ScimTestServer, free_port
from tests.servers.composed import ComposedKafka, ComposedRedis, kafka_client
from tests.servers.process import LOOPBACK, ROOT, Process
from tests.waiting import eventually

pytestmark = [pytest.mark.needs("application", "postgresql", "kafka")]

LASTING = (*WEB, *AUTH_WORKERS, *PARTICIPANTS, "scim")
SERVICES = ("auth", *PARTICIPANTS, "crm")
PASSWORD = "correct horse 9"
# Words with which PostgreSQL, Kafka and Redis deny something.
REFUSALS = ("permission denied", "noperm", "authorization failed", "insufficientprivilege", "noauth")


class Composed:
    """The servers of compose.yaml, and its roles with their own environments."""

    def __init__(self, stack: ExitStack, directory: Path) -> None:
        self._stack = stack
        self._directory = directory
        # compose.yaml, as the roles were last started with it.
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
        """The environment of the role in its container, with the addresses that the servers have here."""
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
        self._wait_until_healthy(*self.roles)

    def up(self, *names: str) -> list[str]:
        """Replace those that run with another environment than compose.yaml gives them now. Return their names."""
        outdated = [
            name for name in names
            if self.roles[name].running and self.roles[name].env != self.environment_of(name)
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
        """Its own health check, at the port that it has here."""
        _, *command = self.services[name]["healthcheck"]["test"]
        port = self.ports[name]
        command = [part.replace(":8000/", f":{port}/").replace(":8001/", f":{port}/") for part in command]
        command[0] = sys.executable
        return subprocess.run(command, capture_output=True, check=False, timeout=30).returncode == 0

    def sign_up(self, user_id: str) -> dict[str, str]:
        """Signs somebody up at auth; the status of each light in the end."""
        form = {"userId": user_id, "userPw": PASSWORD, "email": f"{user_id}@example.org", "userName": "C"}
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
        return {"bootstrap.servers": self.kafka.address, **kafka_client(self.services["web"])}

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


class Visitor:
    """A browser without JavaScript, behind the proxy that terminates TLS."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._cookies: dict[str, str] = {}

    def open(self, path: str, form: Mapping[str, str] | None = None) -> tuple[int, str]:
        """Request a page, or post a form. Return the status and the page."""
        public = "https://signup.example.org"
        headers = {
            "Host": "signup.example.org", "Origin": public, "Content-Type": "application/x-www-form-urlencoded",
            "X-Forwarded-Proto": "https", "X-Forwarded-For": "198.51.100.7",
            "Cookie": "; ".join(f"{name}={value}" for name, value in self._cookies.items()),
        }  # fmt: skip
        with closing(HTTPConnection(LOOPBACK, self._port, timeout=30)) as connection:
            connection.request("POST" if form else "GET", path, urlencode(form) if form else None, headers)
            response = connection.getresponse()
            for cookie in response.headers.get_all("Set-Cookie") or ():
                self._cookies |= {name: morsel.value for name, morsel in SimpleCookie(cookie).items()}
            return response.status, response.read().decode()

    def log_in(self, user_id: str) -> None:
        _, page = self.open("/login/")
        hidden = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]+)"', page))
        status, page = self.open("/login/", hidden | {"username": user_id, "password": PASSWORD})
        assert status == 302, page

    def is_logged_in(self) -> bool:
        return self.open("/account/")[0] == 200


class Operator:
    """Types the guide's commands in the folder of an installation."""

    def __init__(self, composed: Composed, folder: Path) -> None:
        self._composed = composed
        self._folder = folder
        (folder / "deploy").mkdir()
        for name in ("compose.yaml", "deploy/make-secrets.sh"):
            shutil.copy(ROOT / name, folder / name)
        self._write(ENVIRONMENT)

    def delete_lines(self, *names: str) -> None:
        self._write({name: value for name, value in self.environment.items() if name not in names})

    @property
    def environment(self) -> dict[str, str]:
        return dict(line.split("=", 1) for line in (self._folder / ".env").read_text().splitlines())

    def _write(self, environment: Mapping[str, str]) -> None:
        (self._folder / ".env").write_text("".join(f"{name}={value}\n" for name, value in environment.items()))

    def types(self, line: str) -> list[str]:
        """Type a command, and return the names of the roles that it replaced."""
        composed = self._composed
        match shlex.split(line):
            case ["sh", "deploy/make-secrets.sh" as script]:
                subprocess.run(["sh", script], cwd=self._folder, check=True, timeout=60)
                composed.services = resolved(self.environment)["services"]
            case ["docker", "compose", "run", "--rm", "databases"]:
                composed.run_databases()
            case ["docker", "compose", "up", "--detach", "--no-deps", *names]:
                return composed.up(*names)
            case ["docker", "compose", "up", "--detach"]:
                composed.redis.restart_with(composed.services["redis"])
                return composed.up(*LASTING)
            case _:
                raise ValueError(line)
        return []


def test_passwords_of_postgresql_and_redis_are_replaced_and_everybody_stays_logged_in(
    composed: Composed, tmp_path: Path
):
    """With the commands of docs/operations.md. This test is the last one here: to save time, it ends those of auth's
    roles whose environment is the same as that of auth-results."""
    for name in ("relay", "dead-letters", "purge"):
        assert composed.roles[name].stop() == 0
    operator, visitor = Operator(composed, tmp_path), Visitor(composed.ports["web"])
    user_id = f"composed-{uuid4().hex[:8]}"
    composed.sign_up(user_id)
    visitor.log_in(user_id)
    assert visitor.is_logged_in()

    urls = {"auth": "AUTH_DATABASE_URL", "chat": "CHAT_DATABASE_URL", "migrate": "CHAT_DATABASE_URL"}
    before = {name: composed.environment_of(name) for name in LASTING} | {"migrate": composed.environment_of("migrate")}
    operator.delete_lines("AUTH_DATABASE_PASSWORD", "CHAT_DATABASE_PASSWORD", "CHAT_OWNER_PASSWORD")
    make_secrets, set_passwords, restart_workers, restart_web = commands_after("**PostgreSQL.**")
    operator.types(make_secrets)
    operator.types(set_passwords)
    for name, url in urls.items():
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(before[name][url]).close()
        psycopg.connect(composed.environment_of(name)[url]).close()
    assert visitor.is_logged_in(), "open connections stay open"
    assert operator.types(restart_workers) == ["auth-results", "chat"]
    assert operator.types(restart_web) == ["web"]
    assert composed.up("auth") == ["auth"]
    assert visitor.is_logged_in()
    assert composed.sign_up(f"composed-{uuid4().hex[:8]}") == dict.fromkeys(SERVICES, "SUCCESS")

    operator.delete_lines("REDIS_AUTH_PASSWORD")
    make_secrets, restart = commands_after("**Kafka and Redis**")
    operator.types(make_secrets)
    assert set(operator.types(restart)) == {"web", "auth", "auth-results"}
    with pytest.raises(redis.AuthenticationError), redis.Redis.from_url(before["web"]["REDIS_URL"]) as client:
        client.ping()
    with redis.Redis.from_url(composed.environment_of("web")["REDIS_URL"]) as client:
        assert client.ping()
    assert visitor.is_logged_in()
    assert composed.sign_up(f"composed-{uuid4().hex[:8]}") == dict.fromkeys(SERVICES, "SUCCESS")
