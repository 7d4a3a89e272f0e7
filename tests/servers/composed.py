"""Kafka and Redis with the users and rights that compose.yaml gives them, without containers."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.servers.kafka import KafkaServer
from tests.servers.process import LOOPBACK, ROOT
from tests.servers.redis import RedisServer

# Settings that depend on the machine: KafkaServer replaces them.
_PLACES = ("KAFKA_LISTENERS", "KAFKA_ADVERTISED_LISTENERS", "KAFKA_CONTROLLER_QUORUM_VOTERS", "KAFKA_LOG_DIRS")


class ComposedKafka(KafkaServer):
    """Kafka with the settings from the environment of compose.yaml's container, like its image."""

    name = "composed-kafka"

    def __init__(self, service: Mapping[str, Any], *, admin: Mapping[str, str]) -> None:
        """`service` is the one of compose.yaml, `admin` the client settings of its administrator."""
        self._environment = service["environment"]
        self._admin = dict(admin)
        super().__init__()

    def up(self, service: Mapping[str, Any], *, admin: Mapping[str, str]) -> None:
        """Start it again if this version of compose.yaml gives it another environment."""
        if service["environment"] != self._environment:
            self._environment, self._admin = service["environment"], dict(admin)
            self.stop()
            (self.directory / "server.properties").write_text(self._properties())
            self.start()

    def probe_config(self) -> dict[str, str]:
        return {**super().probe_config(), **self._admin}

    def settings(self) -> dict[str, object]:
        given = {
            name.removeprefix("KAFKA_").lower().replace("_", "."): value
            for name, value in self._environment.items()
            if name not in (*_PLACES, "KAFKA_HEAP_OPTS")
        }
        own: dict[str, object] = {
            "listeners": f"CLIENTS://{self.address},CONTROLLER://{LOOPBACK}:{self.controller_port}",
            "controller.quorum.voters": f"1@{LOOPBACK}:{self.controller_port}",
            "log.dirs": self.directory / "data",
            "offsets.topic.num.partitions": 4,
        }
        return given | own


class ComposedRedis(RedisServer):
    """Redis as deploy/redis-users.sh starts it."""

    def __init__(self, service: Mapping[str, Any]) -> None:
        self._environment = service["environment"]
        super().__init__()

    def up(self, service: Mapping[str, Any]) -> None:
        """Start it again if this version of compose.yaml gives it another environment."""
        if service["environment"] != self._environment:
            self._environment = service["environment"]
            self.stop()
            self.process.env = self.process_env()
            self.start()

    def command(self) -> Sequence[str | Path]:
        return ["sh", ROOT / "deploy" / "redis-users.sh", *super().command()]

    def process_env(self) -> dict[str, str]:
        return dict(os.environ) | self._environment | {"TMPDIR": str(self.directory)}

    @property
    def env(self) -> dict[str, str]:
        return {"REDIS_URL": f"redis://auth:{self._environment['REDIS_AUTH_PASSWORD']}@{self.address}/0"}


def kafka_client(role: Mapping[str, Any]) -> dict[str, str]:
    """The client settings that a role of compose.yaml is given."""
    config: dict[str, str] = json.loads(role["environment"]["KAFKA_CLIENT_CONFIG"])
    return config
