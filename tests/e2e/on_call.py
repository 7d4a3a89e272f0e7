"""The person on call, who types the commands of docs/operations.md on an installation without containers."""

import os
import re
import shlex
import subprocess

from tests.servers import PostgresqlServer
from tests.servers.postgresql import SERVICES
from tests.stack import Stack

# The processes of a stack, by their service in compose.yaml. A stack has neither a purge nor a gateway to stop.
PROCESSES = {"auth": "auth-1", "gateway": None, "purge": None}


class OnCall:
    """Types commands for chat or auth, also for another service. Files are in the stack's folder."""

    def __init__(self, stack: Stack, postgresql: PostgresqlServer) -> None:
        self.stack = stack
        self.postgresql = postgresql

    def types(self, line: str, *, database: str | None = None) -> None:
        """Type a command for Docker Compose. A service's database is that of the stack, or `database` instead."""
        words = shlex.split(line)
        assert words[:2] == ["docker", "compose"], line
        match words[2:]:
            case ["stop", *names]:
                for name in self._processes(names):
                    self.stack.roles[name].stop()
            case ["start", *names]:
                self._start(self._processes(names))
            case ["run", "--rm", "databases"]:
                self.postgresql.create_services(self.database_of(""))
            case ["run", "--rm", "migrate"]:
                self.stack.migrate()
            case ["exec", "-T", "postgres", program, *_]:
                _, rest = line.split(f" {program} ", 1)
                self._shell(f"{self.postgresql.binary(program)} {self._with_databases(rest, database)}")
            case _:
                raise ValueError(line)

    def database_of(self, service: str) -> str:
        """Return the name of a service's database, or the prefix of all of them."""
        return self.stack.env["AUTH_DATABASE_URL"].rsplit("/", 1)[-1].removesuffix("auth") + service

    def _processes(self, names: list[str]) -> list[str]:
        return [process for name in names if (process := PROCESSES.get(name, name))]

    def _start(self, names: list[str]) -> None:
        for name in names:
            self.stack.roles[name].launch()
        for name in names:
            self.stack.roles[name].wait_until_ready()

    def _with_databases(self, words: str, database: str | None) -> str:
        names = "|".join(SERVICES)
        return re.sub(rf"(?<![\w/.-])({names})(?![\w.-])", lambda found: database or self.database_of(found[0]), words)

    def _shell(self, line: str) -> None:
        done = subprocess.run(
            line, shell=True, env=os.environ | self.postgresql.superuser_env(), cwd=self.stack.directory,
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, f"{line}\n{done.stderr}"


def about(lines: list[str], service: str) -> list[str]:
    """Return the commands about chat as commands about another service."""
    return [re.sub(r"\bchat\b", service, line) for line in lines]
