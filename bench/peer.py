"""The Spring peer: built once in a copy, and started and stopped by its own scripts."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from tests.servers import free_port
from tests.servers.process import LOOPBACK, ROOT

# The copy is kept between runs, because a build takes a minute and downloads its dependencies.
COPY = ROOT / ".servers" / "spring-peer"
JVMS = ("eureka", "gateway", "auth", "chat", "customer")
# Environment variables for the ports in run.sh, which hard-codes those of chat and customer.
PORTS = ("PG_PORT", "REDIS_PORT", "KAFKA_PORT", "EUREKA_PORT", "GATEWAY_PORT", "AUTH_PORT_BASE")
START_TIMEOUT = 300


class PeerError(Exception):
    """One of the peer's scripts failed."""


@dataclass(frozen=True, slots=True)
class PeerStart:
    """Seconds until the first sign-up was all green: from nothing, and from when its servers and Eureka were ready."""

    seconds: float
    roles_seconds: float


class SpringPeer:
    """The peer, with `BCRYPT_STRENGTH=4`, which costs about a millisecond of CPU per hash."""

    def __init__(self, source: Path, directory: Path) -> None:
        """Build the peer if that has not been done yet."""
        self._run = directory / "peer"
        self._env = {
            **os.environ,
            **{name: str(free_port()) for name in PORTS},
            "RUN_DIR": str(self._run),
            "BCRYPT_STRENGTH": "4",
        }
        self.url = f"http://{LOOPBACK}:{self._env['GATEWAY_PORT']}"
        if not _is_built(source):
            self._build(source)

    def start(self) -> PeerStart:
        """Start it from nothing; it creates its databases anew each time."""
        said = self._script("run.sh")
        seconds = float(next(line.split()[1] for line in said.splitlines() if line.startswith("ready_s ")))
        # gateway.pid is written when the servers and Eureka answer, and `ready` after the first sign-up.
        roles = (self._run / "ready").stat().st_mtime - (self._run / "pids" / "gateway.pid").stat().st_mtime
        return PeerStart(seconds, roles)

    def stop(self) -> None:
        self._script("stop.sh")

    @property
    def pids(self) -> dict[str, int]:
        return {path.stem: int(path.read_text()) for path in sorted((self._run / "pids").glob("*.pid"))}

    def _build(self, source: Path) -> None:
        print("  building the Spring peer, once; this takes 1 to 3 minutes", flush=True)
        shutil.rmtree(COPY, ignore_errors=True)
        shutil.copytree(source, COPY, ignore=shutil.ignore_patterns("target"))
        self._script("build.sh")
        # Create the class archives that speed up its start (see its README).
        self._script("run.sh", CDS_TRAIN="1")
        self._script("stop.sh")
        (COPY / "built").write_text(_contents(source))

    def _script(self, name: str, **env: str) -> str:
        # Write to a file: background processes would keep a pipe open.
        with tempfile.TemporaryFile("w+") as output:
            done = subprocess.run(
                [COPY / name],
                env=self._env | env,
                cwd=COPY,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                timeout=START_TIMEOUT,
                check=False,
            )
            output.seek(0)
            said = output.read()
        if done.returncode != 0:
            raise PeerError(f"the peer's {name} ended with {done.returncode}:\n{said}")
        return said


@contextmanager
def spring_peer(source: Path, directory: Path) -> Iterator[SpringPeer]:
    """Yield the peer, not started yet; stop it at the end."""
    peer = SpringPeer(source, directory)
    try:
        yield peer
    finally:
        peer.stop()


def _is_built(source: Path) -> bool:
    built = COPY / "built"
    return built.exists() and built.read_text() == _contents(source)


def _contents(source: Path) -> str:
    """Return a fingerprint of the sources, to detect another version."""
    files = sorted(path for path in source.rglob("*") if path.is_file() and not {"target", "lib"} & set(path.parts))
    return "\n".join(f"{path.relative_to(source)} {sha256(path.read_bytes()).hexdigest()}" for path in files)
