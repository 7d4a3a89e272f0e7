"""Every command of compose.yaml, started outside containers with the environment that compose gives it."""

import json
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

import pytest

from tests.contract.test_compose import services
from tests.servers import KafkaServer, PostgresqlServer, RedisServer, free_port
from tests.servers.process import LOOPBACK, ROOT, Process

pytestmark = [pytest.mark.needs("application", "postgresql", "kafka")]

LASTING = ("web", "auth", "auth-results", "chat", "customer", "relay", "dead-letters")


def health_of(service: dict, port: int) -> bool:
    """Its own health check, at the port that it has here."""
    _, *command = service["healthcheck"]["test"]
    command = [part.replace(":8000/", f":{port}/").replace(":8001/", f":{port}/") for part in command]
    command[0] = sys.executable
    return subprocess.run(command, capture_output=True, check=False, timeout=30).returncode == 0


def command_of(service: dict, port: int) -> list[str]:
    _, *rest = service["command"]
    if "serve" in rest:
        rest = [part.replace("0.0.0.0", LOOPBACK) for part in rest] + ["--port", str(port)]
    return [sys.executable, *rest]


def test_every_command_starts_and_is_healthy_and_the_installation_works(
    postgresql: PostgresqlServer, kafka: KafkaServer, tmp_path: Path
):
    prefix = f"compose_{uuid4().hex[:8]}_"
    postgresql.create_databases(prefix)
    addresses = {
        f"postgres://{name}:test-{name}_database_password@postgres:5432/{name}": postgresql.url(prefix + name)
        for name in ("auth", "chat", "customer")
    }
    ports = {name: free_port() for name in LASTING}
    with ExitStack() as stack:
        redis = stack.enter_context(RedisServer())
        here = {
            "KAFKA_BOOTSTRAP_SERVERS": kafka.env["KAFKA_BOOTSTRAP_SERVERS"],
            "KAFKA_PREFIX": prefix,
            "REDIS_URL": redis.env["REDIS_URL"],
        }

        def environment_of(name: str) -> dict[str, str]:
            given = services()[name]["environment"]
            return (
                {key: addresses.get(value, value) for key, value in given.items()}
                | here
                | {"HEALTH_PORT": str(ports.get(name, 0))}
            )

        migrate = services()["migrate"]
        done = subprocess.run(
            command_of(migrate, 0), cwd=ROOT, env=environment_of("migrate"), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        running = {
            name: Process(
                name, command_of(services()[name], port), env=environment_of(name), log=tmp_path / f"{name}.log"
            )
            for name, port in ports.items()
        }
        for process in running.values():
            process.start()
            stack.callback(process.kill)
        for name, process in running.items():
            process.wait_ready(lambda name=name: health_of(services()[name], ports[name]), 60)
        person = f"composed-{uuid4().hex[:8]}"
        form = {"userId": person, "userPw": "correct horse 9", "email": f"{person}@example.org", "userName": "C"}
        answer = subprocess.run(
            ["curl", "-sS", "-m", "30", "-N", "-X", "POST", f"http://{LOOPBACK}:{ports['auth']}/user",
             # As what ends TLS in front says it; the addresses of TRUSTED_PROXIES hold this host's.
             "-H", "X-Forwarded-Proto: https",
             "-H", "Content-Type: application/json", "-H", "Accept: text/event-stream", "-d", json.dumps(form)],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        last = json.loads(answer.stdout.rsplit("data: ", 1)[1])
        assert last["complete"]
        assert {light["status"] for light in last["services"].values()} == {"SUCCESS"}
        assert [process.stop() for process in running.values()] == [0] * len(running)
