"""The installation under load: the tests' stack on servers configured like those of production and of the peer."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.servers import CaddyServer, KafkaServer, PostgresqlServer
from tests.stack import Stack

PARTICIPANTS = ("chat", "customer")
# Roles whose memory is compared with that of the peers' roles.
ROLES = ("web", "auth-1", "auth-results", *PARTICIPANTS, "relay")


class MeasuredStack(Stack):
    """Two participants, whichever are added to the project: figures of other numbers can't be compared."""

    participants = PARTICIPANTS


class DurablePostgresql(PostgresqlServer):
    """PostgreSQL with fsync, like in production and for the peer. These settings override the earlier ones."""

    def command(self) -> Sequence[str | Path]:
        settings = ("fsync=on", "full_page_writes=on", "shared_buffers=256MB", "max_wal_size=4GB")
        return [*super().command(), *(word for setting in settings for word in ("-c", setting))]


class WarmedKafka(KafkaServer):
    """Kafka on a JVM with full optimisation, like in production and for the peer."""

    java_options = ("-Xms256m", "-Xmx512m")


@dataclass(frozen=True, slots=True)
class Servers:
    """The servers that all installations of a run share."""

    postgresql: PostgresqlServer
    kafka: KafkaServer


@contextmanager
def servers() -> Iterator[Servers]:
    """Start both at the same time."""
    started = Servers(DurablePostgresql(), WarmedKafka())
    try:
        started.postgresql.launch()
        started.kafka.launch()
        started.postgresql.wait_ready()
        started.kafka.wait_ready()
        yield started
    finally:
        started.kafka.close()
        started.postgresql.close()


class Installation:
    """An installation with one process per role, behind Caddy."""

    def __init__(self, stack: Stack, servers: Servers, caddy: CaddyServer) -> None:
        self.stack = stack
        self.servers = servers
        self.caddy = caddy

    @property
    def url(self) -> str:
        return self.stack.base_url

    @property
    def pids(self) -> dict[str, int]:
        """The processes that take part in a sign-up, by name."""
        roles = {name: role.pid for name, role in self.stack.roles.items() if role.running}
        around = {
            "caddy": self.caddy.process.pid,
            "redis": self.stack.redis.process.pid,
            "kafka": self.servers.kafka.process.pid,
            "postgresql": self.servers.postgresql.process.pid,
        }
        return roles | around

    def pid(self, role: str) -> int:
        return self.stack.roles[role].pid

    def restart(self, **settings: str) -> None:
        """Restart every role, with these settings added to its environment and to that of commands."""
        roles = self.stack.roles.values()
        self.stack.env |= settings
        for role in roles:
            role.stop()
            role.env = {**role.env, **settings}
            role.launch()
        for role in roles:
            role.wait_until_ready()

    @contextmanager
    def without(self, *roles: str) -> Iterator[None]:
        """Stop these roles within the context."""
        for role in roles:
            self.stack.roles[role].stop()
        try:
            yield
        finally:
            for role in roles:
                self.stack.roles[role].start()

    @contextmanager
    def with_environment(self, role: str, env: Mapping[str, str]) -> Iterator[None]:
        """Run this role with another environment within the context."""
        process = self.stack.roles[role]
        usual = process.env
        try:
            process.stop()
            process.env = dict(env)
            process.start()
            yield
        finally:
            process.stop()
            process.env = usual
            process.start()


@contextmanager
def installation(servers: Servers, **settings: str) -> Iterator[Installation]:
    """Start a fresh installation; `settings` are added to the environment of every role."""
    with MeasuredStack.real(postgresql=servers.postgresql, kafka=servers.kafka, auths=1, **settings) as stack:
        assert stack.caddy is not None
        yield Installation(stack, servers, stack.caddy)
