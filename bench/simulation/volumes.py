"""What a sign-up writes: rows and log of PostgreSQL, messages of Kafka, and copies in Redis."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import psycopg
import redis

from bench.floor import floor_databases
from bench.installation import Installation


class Volumes:
    """Measures the growth, in bytes, since its creation."""

    def __init__(self, ours: Installation) -> None:
        self._ours = ours
        self._before = dict(self._now())

    def read(self, signups: int) -> Mapping[str, float]:
        """Return the bytes per sign-up."""
        return {name: (value - self._before[name]) / signups for name, value in self._now()}

    def _now(self) -> Iterator[tuple[str, float]]:
        env = self._ours.stack.env | self._ours.stack.owner_env
        databases = floor_databases(env)
        for name, url in databases.items():
            with psycopg.connect(url) as connection:
                yield f"rows and indexes of {name}", _first(connection, "SELECT pg_database_size(current_database())")
        with psycopg.connect(databases["auth"]) as connection:
            yield "PostgreSQL's log (WAL)", _first(connection, "SELECT pg_current_wal_lsn() - '0/0'::pg_lsn")
        prefix = env["KAFKA_PREFIX"]
        for topic in ("user.newUser.req", "user.newUser.res"):
            yield f"Kafka's {topic}", _size(self._ours.servers.kafka.directory / "data", f"{prefix}{topic}-*")
        with redis.Redis.from_url(env["REDIS_URL"]) as client:
            yield "Redis, for PROJECTION_TTL", client.info("memory")["used_memory"]


def _first(connection: "psycopg.Connection[tuple[object, ...]]", query: str) -> float:
    row = connection.execute(query).fetchone()
    assert row is not None
    return float(str(row[0]))


def _size(folder: Path, partitions: str) -> float:
    """Return the size of the partitions' segments, without their indexes, which are allocated in advance."""
    return sum(segment.stat().st_size for segment in folder.glob(f"{partitions}/*.log"))
