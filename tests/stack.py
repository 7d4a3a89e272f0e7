"""The application under test: one process per role, started with the commands of production."""

import json
import os
import secrets
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self

import psycopg

from signup_sync.participants import PARTICIPANTS, package_of
from tests.contract import kafka_messages
from tests.servers import CaddyServer, KafkaServer, PostgresqlServer, RedisServer, ValkeyServer, free_port
from tests.servers.process import LOOPBACK, ROOT, Process, http_status

MANAGE = (sys.executable, str(ROOT / "manage.py"))
# The table of each service's users. `startservice billing` calls the model BillingUser.
TABLES = {
    "auth": "authsvc_user",
    **{service: f"{package_of(service)}_{service}user" for service in PARTICIPANTS},
    "customer": "customersvc_customer",
}
CONSUMERS = {"auth-results": "auth", **{service: service for service in PARTICIPANTS}}
# As in compose.yaml, a role gets only the address of its own database; the others get this invalid one.
NO_DATABASE = f"postgres://nobody@{LOOPBACK}:1/none"
# Timeout in seconds for a start, generous because the machine may be busy.
START_TIMEOUT = 60.0


class UserRow(NamedTuple):
    """A user as every service stores it."""

    user_id: str
    email: str
    user_name: str
    role: str


class RoleProcess(Process):
    """A process of one role, which reports over HTTP when it is ready."""

    def __init__(self, name: str, command: Sequence[str], *, env: Mapping[str, str], log: Path, port: int) -> None:
        super().__init__(name, command, env=env, log=log)
        self.port = port

    def start(self) -> None:
        """Start or restart it, and wait until it is ready."""
        self.launch()
        self.wait_until_ready()

    def launch(self) -> None:
        super().start()

    def is_ready(self) -> bool:
        return http_status(self.port, "/health/ready") == 200

    def wait_until_ready(self) -> None:
        self.wait_ready(self.is_ready, START_TIMEOUT)


class Stack:
    """A fresh, separate installation: its own databases and Redis, and a prefix for its topics and groups.

    Create one with `embedded` or `real`. `roles` are web, relay, auth-results, dead-letters and one for each
    participant, and on the real servers also auth-1 and auth-2 behind the gateway. Each can be stopped, killed, paused
    and restarted.
    """

    # Fewer than the project has, for code that doesn't know all of them or figures that depend on their number.
    participants: Sequence[str] = PARTICIPANTS
    # The Redis server that `real` starts.
    redis_server: type[RedisServer] = RedisServer

    def __init__(self, env: Mapping[str, str], *, directory: Path, redis: RedisServer, base_url: str) -> None:
        self.env = {
            # Don't inherit anything else: the environment of the test run must not influence the test.
            "PATH": os.environ["PATH"],
            "HOME": str(directory),
            "LANG": "C.UTF-8",
            "DATA_DIR": str(directory / "data"),
            "SECRET_KEY": secrets.token_urlsafe(50),
            "KAFKA_PREFIX": directory.name + "-",
            "SIGNUP_SERVICES": ",".join(("auth", *self.participants)),
            "GATEWAY_URL": base_url,
            # All clients of a test come from one address.
            "HELD_PER_ADDRESS": "0",
            "RATE_LIMIT_FAILED_LOGIN": "0",
            **redis.env,
            **env,
        }
        self.directory = directory
        self.redis = redis
        self.base_url = base_url
        self.caddy: CaddyServer | None = None
        # Settings for migrations, because on PostgreSQL another database role owns the tables.
        self.owner_env: dict[str, str] = {}
        self.roles: dict[str, RoleProcess] = {}
        for role, service in CONSUMERS.items():
            if service in ("auth", *self.participants):
                self._add_worker(role, "consume_events", service, database=service)
        self._add_worker("relay", "relay_signups", database="auth")
        self._add_worker("dead-letters", "collect_dead_letters", database="auth")

    @classmethod
    @contextmanager
    def embedded(cls, **settings: str) -> Iterator[Self]:
        """Run on the servers of `make run`: SQLite, Valkey, and a broker in this process. The web process serves auth.

        `settings` are added to the environment of every role.
        """
        from eventbus.embedded import EmbeddedBroker

        with _directory() as directory, ValkeyServer() as valkey, EmbeddedBroker() as broker:
            port = free_port()
            kafka = {"KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap_servers, "KAFKA_EMBEDDED": "true"}
            stack = cls(kafka | settings, directory=directory, redis=valkey, base_url=f"http://{LOOPBACK}:{port}")
            stack.add_web("web", port)
            with stack.running():
                yield stack

    @classmethod
    @contextmanager
    def real(
        cls, *, postgresql: PostgresqlServer, kafka: KafkaServer, auths: int = 2, **settings: str
    ) -> Iterator[Self]:
        """Run on PostgreSQL, Kafka, a separate Redis, and Caddy in front of one web process and `auths` auth instances.

        `settings` are added to the environment of every role.
        """
        ports = {name: free_port() for name in ("web", *(f"auth-{number + 1}" for number in range(auths)))}
        web, *auth = (f"{LOOPBACK}:{port}" for port in ports.values())
        with _directory() as directory, cls.redis_server() as redis, CaddyServer(web=web, auth=auth) as caddy:
            prefix = directory.name.replace("-", "_") + "_"
            postgresql.create_services(prefix)
            env = postgresql.run_time_env(prefix) | kafka.env | settings
            stack = cls(env, directory=directory, redis=redis, base_url=caddy.env["GATEWAY_URL"])
            stack.caddy = caddy
            # A test that gives a service a separate PostgreSQL has created the database, and owns it.
            own = {name: url for name, url in settings.items() if name.endswith("_DATABASE_URL")}
            stack.owner_env = postgresql.owner_env(prefix) | own
            for name, port in ports.items():
                stack.add_web(name, port)
            with stack.running():
                yield stack

    def add_web(self, name: str, port: int, **settings: str) -> RoleProcess:
        """Add a web process without starting it; `settings` are added to its environment."""
        return self._add(name, (*MANAGE, "serve", "--port", str(port)), env=self.env | settings, port=port)

    def add_consumer(self, name: str, *, like: str) -> RoleProcess:
        """Add a process of the consumer `like` (auth-results or a participant) without starting it."""
        return self._add_worker(name, "consume_events", CONSUMERS[like], database=CONSUMERS[like])

    def add_scim(self) -> RoleProcess:
        """Add the process that provisions all SCIM servers of the settings, without starting it."""
        return self._add_worker("scim", "consume_events", "scim", database="scim")

    def _add_worker(self, name: str, *command: str, database: str) -> RoleProcess:
        port = free_port()
        env = self.env | {"HEALTH_PORT": str(port)}
        if "AUTH_DATABASE_URL" in env:
            env |= {
                f"{other.upper()}_DATABASE_URL": NO_DATABASE for other in ("auth", *PARTICIPANTS) if other != database
            }
        return self._add(name, (*MANAGE, *command), env=env, port=port)

    def _add(self, name: str, command: Sequence[str], *, env: Mapping[str, str], port: int) -> RoleProcess:
        self.roles[name] = RoleProcess(name, command, env=env, log=self.directory / f"{name}.log", port=port)
        return self.roles[name]

    @contextmanager
    def running(self) -> Iterator[None]:
        """Migrate, start all roles at the same time, and at the end kill those that the test has not stopped.

        Raises AssertionError if messages on Kafka do not fit their contract."""
        with kafka_messages.validated(self.kafka_config):
            try:
                self.migrate()
                for role in self.roles.values():
                    role.launch()
                for role in self.roles.values():
                    role.wait_until_ready()
                yield
            finally:
                for role in self.roles.values():
                    role.kill()

    @property
    def kafka_config(self) -> dict[str, Any]:
        """The settings with which a Kafka client reaches this installation's broker."""
        own = json.loads(self.env.get("KAFKA_CLIENT_CONFIG") or "{}")
        return {"bootstrap.servers": self.env["KAFKA_BOOTSTRAP_SERVERS"], **own}

    def migrate(self) -> None:
        """Create the tables, as their owner."""
        env: Any = self.owner_env
        self.manage("migrate_all", "--verbosity", "0", **env)

    def manage(self, *command: str, check: bool = True, **env: str) -> subprocess.CompletedProcess[str]:
        """Run `manage.py <command>`. If it fails and `check` is true, raise AssertionError with its output."""
        done = subprocess.run(
            [*MANAGE, *command],
            env=self.env | env,
            cwd=ROOT,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0 or not check, f"{command} ended with {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def rows(self, service: str) -> set[UserRow]:
        """Return the users of a service, read directly from its database."""
        query = f"SELECT user_id, email, user_name, role FROM {TABLES[service]}"
        return {UserRow(*row) for row in self.query(service, query)}

    def query(self, service: str, sql: str, *, as_owner: bool = False) -> list[tuple[Any, ...]]:
        """Run SQL on the database of a service, commit, and return the rows. Only the owner may alter the tables."""
        url = (self.env | (self.owner_env if as_owner else {})).get(f"{service.upper()}_DATABASE_URL")
        if url is None:
            with closing(sqlite3.connect(Path(self.env["DATA_DIR"]) / f"{service}.sqlite3", timeout=20)) as connection:
                rows = connection.execute(sql).fetchall()
                connection.commit()
                return rows
        with psycopg.connect(url) as connection:
            cursor = connection.execute(sql)
            return cursor.fetchall() if cursor.description else []

    def logs(self) -> dict[str, str]:
        """Return the logs of the roles and of the gateway, by name."""
        processes = [*self.roles.values(), *([self.caddy.process] if self.caddy else [])]
        return {process.name: process.log() for process in processes}


@contextmanager
def _directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="signup-sync-stack-", ignore_cleanup_errors=True) as directory:
        yield Path(directory)
