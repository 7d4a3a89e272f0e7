"""Every command of compose.yaml, started outside containers with the environment that compose gives it: each role has
its own user of PostgreSQL, Kafka and Redis, with the rights that these have there."""

import json
import logging
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, suppress
from http.client import HTTPConnection
from http.cookies import SimpleCookie
from pathlib import Path
from urllib.parse import urlencode
from uuid import uuid4

import psycopg
import pytest
import redis
from confluent_kafka import KafkaError, KafkaException, Producer

from tests.contract import kafka_messages
from tests.contract.test_compose import ENVIRONMENT, PARTICIPANTS, resolved
from tests.e2e.composed import LASTING, PASSWORD, Composed
from tests.operations_guide import commands_after
from tests.servers.composed import kafka_client
from tests.servers.process import LOOPBACK, ROOT
from tests.waiting import eventually

pytestmark = [pytest.mark.needs("application", "postgresql", "kafka")]

SERVICES = ("auth", *PARTICIPANTS, "crm")
# A refused password is expected, and not worth logging.
SILENT = logging.getLogger("tests.refused")
SILENT.addHandler(logging.NullHandler())
SILENT.propagate = False
# Words with which PostgreSQL, Kafka and Redis deny something.
REFUSALS = ("permission denied", "noperm", "authorization failed", "insufficientprivilege", "noauth")


@pytest.fixture(scope="module")
def composed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Composed]:
    with ExitStack() as stack:
        composed = Composed(stack, tmp_path_factory.mktemp("composed"))
        composed.start()
        stack.enter_context(kafka_messages.validated(composed.kafka_config))
        yield composed
        assert composed.stop() == [0] * len(LASTING)


def test_every_command_starts_and_is_healthy_and_a_sign_up_gets_its_lights(composed: Composed):
    assert composed.sign_up(f"composed-{uuid4().hex[:8]}") == dict.fromkeys(SERVICES, "SUCCESS")
    assert len(composed.crm.users) == 1


def test_dead_letters_are_collected_and_replayed(composed: Composed):
    readers = len((*PARTICIPANTS, "crm"))
    composed.publish("user.newUser.req", b"no event")
    eventually(lambda: composed.run("web", "dead_letters", "list").count("user.newUser.req") == readers)

    composed.run("web", "dead_letters", "replay", "--all-waiting")

    # All of them dead-letter it again.
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
roles = [seen.status.role for seen in read_instances()]
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
    # Each role may register in Redis; that of the SCIM servers also registers each of its services.
    assert len(roles) == len(LASTING) + 1


def test_purge_has_the_rights_to_delete(composed: Composed):
    assert "deleted" in composed.run("purge", "purge")


def test_no_role_is_denied_access(composed: Composed):
    """Neither PostgreSQL, Kafka nor Redis has denied a role an operation."""
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
            case _:
                raise ValueError(line)
        return []


def is_accepted(kafka: str, config: Mapping[str, str]) -> bool:
    """Whether Kafka accepts the user and password of these client settings."""
    refusals: list[int] = []
    note_refusals = {"error_cb": lambda error: refusals.append(error.code()), "logger": SILENT}
    producer = Producer({"bootstrap.servers": kafka, **config, **note_refusals})
    topics: object = None

    def answers() -> bool:
        nonlocal topics
        with suppress(KafkaException):
            topics = producer.list_topics(timeout=1).topics
        producer.poll(0)  # Calls error_cb.
        return bool(topics) or KafkaError._AUTHENTICATION in refusals

    eventually(answers, what="Kafka accepts or refuses the password")
    return bool(topics)


def test_passwords_of_every_server_are_replaced_and_everybody_stays_logged_in(composed: Composed, tmp_path: Path):
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

    operator.delete_lines("KAFKA_ADMIN_PASSWORD", "KAFKA_CHAT_PASSWORD", "REDIS_AUTH_PASSWORD")
    former = {name: kafka_client(composed.services[name]) for name in ("set-up-kafka", "chat", "customer")}
    make_secrets, replace_kafka, replace_redis = commands_after("**Kafka and Redis**")
    operator.types(make_secrets)
    assert operator.types(replace_kafka) == ["chat"]
    assert set(operator.types(replace_redis)) == {"web", "auth", "auth-results"}
    current = {name: kafka_client(composed.services[name]) for name in former}
    assert {name: is_accepted(composed.kafka.address, config) for name, config in current.items()} == dict.fromkeys(
        current, True
    )
    assert {name: is_accepted(composed.kafka.address, config) for name, config in former.items()} == {
        "set-up-kafka": False, "chat": False, "customer": True,
    }  # fmt: skip
    with pytest.raises(redis.AuthenticationError), redis.Redis.from_url(before["web"]["REDIS_URL"]) as client:
        client.ping()
    with redis.Redis.from_url(composed.environment_of("web")["REDIS_URL"]) as client:
        assert client.ping()
    assert visitor.is_logged_in()
    assert composed.sign_up(f"composed-{uuid4().hex[:8]}") == dict.fromkeys(SERVICES, "SUCCESS")
