"""An installation in containers: a copy of the project, set up and started by the README's own commands."""

import json
import os
import re
import secrets
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from tests.e2e.clone import copy_project
from tests.servers import free_port
from tests.servers.process import LOOPBACK, ROOT
from tests.stack import TABLES
from tests.waiting import eventually

README = (ROOT / "README.md").read_text()
# Timeouts in seconds: for one docker command (the first one builds the image), and until all containers are healthy.
COMMAND_TIMEOUT = 300.0
HEALTHY_WITHIN = 180.0


class Installation:
    """One Compose project, with its own name, port, secrets and image. Everything is removed at the end."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.name = f"signup-sync-test-{secrets.token_hex(4)}"
        self.port = free_port()

    @property
    def address(self) -> str:
        """The published port, which speaks HTTP."""
        return f"{LOOPBACK}:{self.port}"

    @property
    def image(self) -> str:
        return f"signup-sync:{self.name}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.compose("--profile", "*", "down", "--volumes", "--remove-orphans", "--timeout", "5")
        self.docker("image", "rm", "--force", self.image)
        assert self.remains() == ""

    def set_up(self) -> None:
        """Copy the project, and type the README's commands before the one that starts it."""
        copy_project(self.directory)
        settings = {
            "COMPOSE_PROJECT_NAME": self.name,
            "GATEWAY_PUBLISH": self.address,
            "SIGNUP_IMAGE": self.image,
        }
        (self.directory / ".env").write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        for line in commands_of_the_readme()[:-1]:
            self.run("sh", "-c", line)

    def delete_setting(self, name: str) -> None:
        """Delete its line from .env."""
        lines = (self.directory / ".env").read_text().splitlines(keepends=True)
        kept = [line for line in lines if not line.startswith(f"{name}=")]
        assert len(kept) == len(lines) - 1
        (self.directory / ".env").write_text("".join(kept))

    def start(self) -> None:
        """Type the README's command that starts everything, and wait until it has."""
        self.run("sh", "-c", commands_of_the_readme()[-1])
        self.wait_until_healthy()

    def wait_until_healthy(self) -> None:
        def is_healthy() -> bool:
            assert self.unhealthy() == {}
            return True

        eventually(is_healthy, HEALTHY_WITHIN, what="every container is healthy, or has done its work", pause=0.5)

    def unhealthy(self) -> dict[str, str]:
        """Return the state of each container that is not healthy and has not ended successfully."""
        states = {each["Name"]: f"{each['State']} {each['Health']} {each['ExitCode']}" for each in self.containers()}
        return {name: state for name, state in states.items() if state not in ("running healthy 0", "exited  0")}

    def containers(self, *services: str) -> list[dict[str, Any]]:
        lines = self.compose("ps", "--all", "--no-trunc", "--format", "json", *services).splitlines()
        return [json.loads(line) for line in lines]

    def compose(self, *arguments: str, input: str | None = None, **settings: str) -> str:
        return self.docker("compose", *arguments, input=input, **settings)

    def docker(self, *arguments: str, input: str | None = None, **settings: str) -> str:
        return self.run("docker", *arguments, input=input, **settings)

    def run(self, *command: str, input: str | None = None, **settings: str) -> str:
        """Run a command in the installation's folder, out of reach of Ctrl-C and of this run's own settings."""
        names = ("PATH", "HOME", "LANG", "TMPDIR", "DOCKER_HOST", "DOCKER_CONFIG", "DOCKER_CONTEXT")
        environment = {name: os.environ[name] for name in names if name in os.environ} | settings
        done = subprocess.run(
            command, cwd=self.directory, env=environment, input=input, capture_output=True, text=True, check=False,
            timeout=COMMAND_TIMEOUT, start_new_session=True,
        )  # fmt: skip
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-1500:]}{done.stderr[-1500:]}"
        return done.stdout

    def python(self, service: str, code: str, *, index: int = 1) -> str:
        """Run Python code in a running container of a role."""
        return self.compose("exec", "--no-TTY", "--index", str(index), service, "python", "-", input=code)

    def kill(self, service: str, *, index: int) -> None:
        """kill -9 the service's process. Docker starts the container again, unlike after `docker kill`."""
        before = self.restarts(service)
        with suppress(AssertionError):  # Docker may report this command as killed, too.
            self.compose("exec", "--no-TTY", "--index", str(index), service, "sh", "-c", "kill -9 -1")
        eventually(lambda: self.restarts(service) == before + 1, what=f"{service} {index} is started again", pause=0.5)

    def restarts(self, service: str) -> int:
        """Return how often Docker has started the service's containers again."""
        names = [each["Name"] for each in self.containers(service)]
        return sum(map(int, self.docker("inspect", "--format", "{{.RestartCount}}", *names).split()))

    def stored(self, user_ids: Sequence[str]) -> dict[str, int]:
        """Return how many rows each service's database has for these users."""
        listed = ",".join(f"'{each}'" for each in user_ids)
        counts = {}
        for service, table in TABLES.items():
            query = f"SELECT count(*) FROM {table} WHERE user_id IN ({listed})"
            psql = ("psql", "--username=postgres", f"--dbname={service}", "--no-align", "--tuples-only", "--command")
            counts[service] = int(self.compose("exec", "--no-TTY", "postgres", *psql, query))
        return counts

    def remains(self) -> str:
        """Return the containers, networks, volumes and images that are left of it."""
        label = f"label=com.docker.compose.project={self.name}"
        left = [
            self.docker("ps", "--all", "--quiet", "--filter", label),
            self.docker("network", "ls", "--quiet", "--filter", label),
            self.docker("volume", "ls", "--quiet", "--filter", label),
            self.docker("image", "ls", "--quiet", self.image),
        ]
        return "".join(left)


def commands_of_the_readme() -> list[str]:
    """Return the lines with which the README sets up and starts the containers, without their remarks."""
    [block] = [each for each in code_blocks_of_the_readme() if "echo PUBLIC_URL=" in each]
    lines = [re.sub(r"\s+# .*", "", line) for line in block.splitlines()]
    # The last one asks for the administrator's name and password.
    assert "up --build" in lines[-2]
    return lines[:-1]


def code_blocks_of_the_readme() -> list[str]:
    return re.findall(r"^```\w*\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
