"""The application under test: every role a process of its own, started by the commands that production uses."""

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

from tests.servers import CaddyServer, KafkaServer, PostgresqlServer, RedisServer, ValkeyServer, free_port
from tests.servers.process import LOOPBACK, ROOT, Process, http_status

MANAGE = (sys.executable, str(ROOT / "manage.py"))
TABLES = {"auth": "authsvc_user", "chat": "chatsvc_chatuser", "customer": "customersvc_customer"}
CONSUMERS = {"auth-results": "auth", "chat": "chat", "customer": "customer"}
# A role gets the addresses of the databases that are its own, as in compose.yaml; the others' are nowhere.
NO_DATABASE = f"postgres://nobody@{LOOPBACK}:1/none"
# Seconds, for a machine that is busy with something else as well.
START_TIMEOUT = 60.0


class UserRow(NamedTuple):
    """What every service keeps of a user."""

    user_id: str
    email: str
    user_name: str
    role: str


class Role(Process):
    """One role of the product: a process that says over HTTP when it is ready."""

    def __init__(self, name: str, command: Sequence[str], *, env: Mapping[str, str], log: Path, port: int) -> None:
        super().__init__(name, command, env=env, log=log)
        self.port = port

    def start(self) -> None:
        """Starts it, again or for the first time, and returns when it is ready."""
        self.launch()
        self.wait_until_ready()

    def launch(self) -> None:
        super().start()

    def is_ready(self) -> bool:
        return http_status(self.port, "/health/ready") == 200

    def wait_until_ready(self) -> None:
        self.wait_ready(self.is_ready, START_TIMEOUT)


class Stack:
    """A running installation, fresh and of its own: databases, Redis, and a prefix before topics and groups.

    Make one by `embedded` or `real`. `roles` are web, relay, auth-results, chat, customer and dead-letters, on the real
    servers also auth-1 and auth-2 behind the gateway; each can be stopped, killed, paused and started again.
    """

    # What `real` starts for itself.
    redis_server: type[RedisServer] = RedisServer

    def __init__(self, env: Mapping[str, str], *, directory: Path, redis: RedisServer, base_url: str) -> None:
        self.env = {
            # Nothing else of the environment in which the tests run: what is exported there is no part of the test.
            "PATH": os.environ["PATH"],
            "HOME": str(directory),
            "LANG": "C.UTF-8",
            "DATA_DIR": str(directory / "data"),
            "SECRET_KEY": secrets.token_urlsafe(50),
            "KAFKA_PREFIX": directory.name + "-",
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
        # What migrations have in place of the roles' own: on PostgreSQL another role owns the tables.
        self.owner_env: dict[str, str] = {}
        self.roles: dict[str, Role] = {}
        for role, service in CONSUMERS.items():
            self._add_worker(role, "consume_events", service, database=service)
        self._add_worker("relay", "relay_signups", database="auth")
        self._add_worker("dead-letters", "collect_dead_letters", database="auth")

    @classmethod
    @contextmanager
    def embedded(cls, **settings: str) -> Iterator[Self]:
        """On what `make run` uses: SQLite, a Valkey, and a broker that this process holds. The web is all of auth.

        `settings` are more of the environment of every role.
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
        """On PostgreSQL, Kafka, a Redis of its own, and Caddy before one web and `auths` instances of auth.

        `settings` are more of the environment of every role.
        """
        ports = {name: free_port() for name in ("web", *(f"auth-{number + 1}" for number in range(auths)))}
        web, *auth = (f"{LOOPBACK}:{port}" for port in ports.values())
        with _directory() as directory, cls.redis_server() as redis, CaddyServer(web=web, auth=auth) as caddy:
            prefix = directory.name.replace("-", "_") + "_"
            postgresql.create_services(prefix)
            env = postgresql.run_time_env(prefix) | kafka.env | settings
            stack = cls(env, directory=directory, redis=redis, base_url=caddy.env["GATEWAY_URL"])
            stack.caddy = caddy
            # A test that gives a service a PostgreSQL of its own has made its database, and owns it.
            own = {name: url for name, url in settings.items() if name.endswith("_DATABASE_URL")}
            stack.owner_env = postgresql.owner_env(prefix) | own
            for name, port in ports.items():
                stack.add_web(name, port)
            with stack.running():
                yield stack

    def add_web(self, name: str, port: int, **settings: str) -> Role:
        """One more process of the web application, not started yet; `settings` are more of its environment."""
        return self._add(name, (*MANAGE, "serve", "--port", str(port)), env=self.env | settings, port=port)

    def add_consumer(self, name: str, *, like: str) -> Role:
        """One more process of the consumer `like` (auth-results, chat or customer), not started yet."""
        return self._add_worker(name, "consume_events", CONSUMERS[like], database=CONSUMERS[like])

    def _add_worker(self, name: str, *command: str, database: str) -> Role:
        port = free_port()
        env = self.env | {"HEALTH_PORT": str(port)}
        if "AUTH_DATABASE_URL" in env:
            env |= {f"{other.upper()}_DATABASE_URL": NO_DATABASE for other in TABLES if other != database}
        return self._add(name, (*MANAGE, *command), env=env, port=port)

    def _add(self, name: str, command: Sequence[str], *, env: Mapping[str, str], port: int) -> Role:
        self.roles[name] = Role(name, command, env=env, log=self.directory / f"{name}.log", port=port)
        return self.roles[name]

    @contextmanager
    def running(self) -> Iterator[None]:
        """Migrates, starts all roles at the same time, and in the end kills what a test has not stopped."""
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

    def migrate(self) -> None:
        """Makes the tables, as their owner."""
        env: Any = self.owner_env
        self.manage("migrate_all", "--verbosity", "0", **env)

    def manage(self, *command: str, check: bool = True, **env: str) -> subprocess.CompletedProcess[str]:
        """Runs `manage.py <command>` to its end; AssertionError with what it said when it fails and `check`."""
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
        """The users that a service keeps, read from its database past all of the product's code."""
        query = f"SELECT user_id, email, user_name, role FROM {TABLES[service]}"
        return {UserRow(*row) for row in self.query(service, query)}

    def query(self, service: str, sql: str, *, as_owner: bool = False) -> list[tuple[Any, ...]]:
        """What the database of a service answers; a change is committed. Only its owner may change the tables."""
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
        """All that the roles and the gateway have written, by name."""
        processes = [*self.roles.values(), *([self.caddy.process] if self.caddy else [])]
        return {process.name: process.log() for process in processes}


@contextmanager
def _directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="signup-sync-stack-", ignore_cleanup_errors=True) as directory:
        yield Path(directory)
