"""The person on call, who types the commands of docs/operations.md on an installation without containers."""

import os
import re
import shlex
import subprocess
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from tests.operations_guide import override_of
from tests.servers import PostgresqlServer, free_port
from tests.servers.postgresql import SERVICES
from tests.stack import Stack
from tests.waiting import eventually

# The processes of a stack, by their service in compose.yaml. A stack has neither a purge nor a gateway to stop.
PROCESSES = {"auth": "auth-1", "gateway": None, "purge": None}


class OnCall:
    """Types the guide's commands for chat or auth, or for another service. Files are in the stack's folder."""

    def __init__(self, stack: Stack, postgresql: PostgresqlServer) -> None:
        self.stack = stack
        self.postgresql = postgresql

    def types(self, line: str, *, database: str | None = None) -> str:
        """Type a command, and return what a program in a container prints. A service's database is that of the stack,
        or `database` instead."""
        words = shlex.split(line)
        match words[2:] if words[:2] == ["docker", "compose"] else words:
            case ["mkdir" | "rm", *_]:
                self._shell(line)
            case ["stop", *names]:
                for name in self._processes(names):
                    self.stack.roles[name].stop()
            case ["start", *names]:
                self._start(self._processes(names))
            case ["run", "--rm", "databases"]:
                self.postgresql.create_services(self.database_of(""))
            case ["run", "--rm", "migrate"]:
                self.stack.migrate()
            case ["exec", "-T", "postgres", *_]:
                _, rest = line.split(" postgres ", 1)
                return self._shell(self._in_container(self._with_databases(rest, database)))
            case _:
                raise ValueError(line)
        return ""

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

    def _in_container(self, line: str) -> str:
        """Run a line meant for PostgreSQL's container locally, as the same user, with PostgreSQL's programs on the
        path.
        """
        programs = f"PATH={self.postgresql.binary('postgres').parent}:{os.environ['PATH']}"
        return shlex.join(["env", "--chdir=/", programs, *self.postgresql.prefix()]) + f" {line}"

    def _with_databases(self, words: str, database: str | None) -> str:
        names = "|".join(SERVICES)
        return re.sub(rf"(?<![\w/.-])({names})(?![\w.-])", lambda found: database or self.database_of(found[0]), words)

    def _shell(self, line: str) -> str:
        done = subprocess.run(
            line, shell=True, env=os.environ | self.postgresql.superuser_env(), cwd=self.stack.directory,
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, f"{line}\n{done.stderr}"
        return done.stdout


class ArchivingServer(PostgresqlServer):
    """A PostgreSQL that archives its WAL, with the settings that the guide puts into compose.override.yaml."""

    @property
    def backup(self) -> Path:
        """The folder that the guide mounts as /backup."""
        return self.directory / "backup"

    def prepare(self) -> None:
        super().prepare()
        self.run(["mkdir", "--mode=700", self.backup, self.backup / "wal"])

    def command(self) -> Sequence[str | Path]:
        _, *options = override_of("postgres")["command"]
        return [*super().command(), *(option.replace("/backup", str(self.backup)) for option in options)]


class Archivist(OnCall):
    """Restores databases to a moment, with the base backup in the server's folder."""

    def __init__(self, stack: Stack, postgresql: ArchivingServer) -> None:
        super().__init__(stack, postgresql)
        self._backup = postgresql.backup
        self._port = free_port()

    def types(self, line: str, *, database: str | None = None, moment: datetime | None = None) -> str:
        """Type a command, as OnCall does. `moment` replaces the one in the guide's example."""
        bases = sorted(each.name for each in self._backup.glob("base-*"))
        here = {r"base-[\d-]+": bases[-1]} if bases else {}
        if moment:
            here[r"(?<=recovery_target_time = ')[^']+"] = moment.isoformat()
        for example, real in {**here, r"/backup\b": str(self._backup), r"\b5433\b": str(self._port)}.items():
            line = re.sub(example, real, line)
        printed = super().types(line, database=database)
        if "pg_switch_wal" in line:
            self._wait_for_the_archive()
        return printed

    def _wait_for_the_archive(self) -> None:
        """Wait until PostgreSQL has archived every finished file of the WAL."""
        waiting = self.postgresql.directory / "data" / "pg_wal" / "archive_status"
        eventually(lambda: not [*waiting.glob("*.ready")], what="the WAL has been archived")

    def end(self) -> None:
        """End the second server if a failed test has left it."""
        if (self._backup / "then" / "postmaster.pid").exists():
            self._shell(self._in_container(f"pg_ctl stop --mode=immediate --pgdata={self._backup}/then"))


def about(lines: list[str], service: str) -> list[str]:
    """Return the commands about chat as commands about another service."""
    return [re.sub(r"\bchat\b", service, line) for line in lines]
