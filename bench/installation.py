"""The product under load: the stack of the tests, on servers set up as production's and the peer's are."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.servers import CaddyServer, KafkaServer, PostgresqlServer
from tests.stack import Stack

# The roles whose memory is compared with the peer's five JVMs.
ROLES = ("web", "auth-1", "auth-results", "chat", "customer", "relay")


class DurablePostgresql(PostgresqlServer):
    """With fsync, as production and the peer have it; the last of two settings of one name counts."""

    def command(self) -> Sequence[str | Path]:
        settings = ("fsync=on", "full_page_writes=on", "shared_buffers=256MB", "max_wal_size=4GB")
        return [*super().command(), *(word for setting in settings for word in ("-c", setting))]


class WarmedKafka(KafkaServer):
    """On a Java that optimises what runs for long, as production and the peer have it."""

    java_options = ("-Xms256m", "-Xmx512m")


@dataclass(frozen=True, slots=True)
class Servers:
    """What every installation of a run shares."""

    postgresql: PostgresqlServer
    kafka: KafkaServer


@contextmanager
def servers() -> Iterator[Servers]:
    """Starts both at the same time."""
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
    """One auth process and one of every other role, behind Caddy."""

    def __init__(self, stack: Stack, servers: Servers, caddy: CaddyServer) -> None:
        self.stack = stack
        self.servers = servers
        self.caddy = caddy

    @property
    def url(self) -> str:
        return self.stack.base_url

    @property
    def pids(self) -> dict[str, int]:
        """All processes that work for a sign-up, by name."""
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

    @contextmanager
    def without(self, *roles: str) -> Iterator[None]:
        """With these roles stopped."""
        for role in roles:
            self.stack.roles[role].stop()
        try:
            yield
        finally:
            for role in roles:
                self.stack.roles[role].start()

    @contextmanager
    def with_environment(self, role: str, env: Mapping[str, str]) -> Iterator[None]:
        """With this role started again in another environment."""
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
    """A fresh one; `settings` are more of the environment of every role."""
    with Stack.real(postgresql=servers.postgresql, kafka=servers.kafka, auths=1, **settings) as stack:
        assert stack.caddy is not None
        yield Installation(stack, servers, stack.caddy)
