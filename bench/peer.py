"""The peers, other implementations of the sign-up: built once in a copy, started and stopped by their own scripts."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from bench.hashing import PASSWORD
from tests.servers import free_port
from tests.servers.process import LOOPBACK, ROOT

# The copies are kept between runs, because a build takes a minute and downloads its dependencies.
COPIES = ROOT / ".servers" / "peers"
HASHES = Path(__file__).parent / "hashes"
# The peers' processes that belong to no role; the memory of the same servers isn't counted on our side either.
SERVERS = frozenset({"kafka", "redis", "postgres"})
# Environment variables for the ports in run.sh. The Spring peer hard-codes those of chat and customer.
PORTS = ("PG_PORT", "REDIS_PORT", "KAFKA_PORT", "EUREKA_PORT", "GATEWAY_PORT", "AUTH_PORT_BASE")
# With this strength, bcrypt costs about a millisecond of CPU.
STRENGTH = "4"
TIMEOUT = 300


class PeerError(Exception):
    """One of the peer's scripts failed."""


@dataclass(frozen=True, slots=True)
class Start:
    """Seconds until the first sign-up was all green: from nothing, and from when the servers were ready."""

    seconds: float
    roles_seconds: float


class Peer:
    """A peer with the cheap hash. Its name is the heading of its README."""

    def __init__(self, source: Path, directory: Path) -> None:
        self._source = source
        self._copy = COPIES / source.name
        self._run = directory / f"peer-{source.name}"
        self._env = {
            **os.environ,
            **{name: str(free_port()) for name in PORTS},
            "RUN_DIR": str(self._run),
            "BCRYPT_STRENGTH": STRENGTH,
        }
        self.name = (source / "README.md").read_text().partition("\n")[0].removeprefix("# ")
        self.url = f"http://{LOOPBACK}:{self._env['GATEWAY_PORT']}"

    def start(self) -> Start:
        """Start it from nothing; it creates new databases each time. Build it first if that has not been done."""
        if not self._is_built():
            self._build()
        said = self._script("run.sh")
        seconds = float(next(line.split()[1] for line in said.splitlines() if line.startswith("ready_s ")))
        # gateway.pid is written when the servers and Eureka answer, and `ready` after the first sign-up.
        roles = (self._run / "ready").stat().st_mtime - (self._run / "pids" / "gateway.pid").stat().st_mtime
        return Start(seconds, roles)

    def stop(self) -> None:
        if self._copy.is_dir():
            self._script("stop.sh")

    @property
    def pids(self) -> dict[str, int]:
        return {path.stem: int(path.read_text()) for path in sorted((self._run / "pids").glob("*.pid"))}

    @property
    def role_pids(self) -> list[int]:
        """The processes of its roles and of its gateway."""
        return [pid for name, pid in self.pids.items() if name not in SERVERS]

    def hash_ms(self, seconds: float) -> float:
        """Return the CPU milliseconds of one hash by its own library, while all cores hash."""
        python = self._copy / "target" / "venv" / "bin" / "python"
        if python.exists():
            program: Sequence[str | Path] = [python, HASHES / "bare_bcrypt.py"]
        else:
            program = ["java", "-cp", self._copy / "auth" / "target" / "app" / "lib" / "*", HASHES / "BareBcrypt.java"]
        said = self._command([*program, STRENGTH, str(seconds), PASSWORD.decode()])
        return float(said.split()[-1])

    def _is_built(self) -> bool:
        built = self._copy / "built"
        return built.exists() and built.read_text() == _contents(self._source)

    def _build(self) -> None:
        print(f"  building the {self.name}, once; this takes 1 to 3 minutes", flush=True)
        shutil.rmtree(self._copy, ignore_errors=True)
        shutil.copytree(self._source, self._copy, ignore=shutil.ignore_patterns("target", "__pycache__"))
        self._script("build.sh")
        # Start it once; the Spring peer then creates the class archives that speed up its starts (see its README).
        self._script("run.sh", CDS_TRAIN="1")
        self._script("stop.sh")
        (self._copy / "built").write_text(_contents(self._source))

    def _script(self, name: str, **env: str) -> str:
        return self._command([self._copy / name], **env)

    def _command(self, command: Sequence[str | Path], **env: str) -> str:
        # Write to a file: background processes would keep a pipe open.
        with tempfile.TemporaryFile("w+") as output:
            try:
                done = subprocess.run(
                    command,
                    env=self._env | env,
                    cwd=self._copy,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    timeout=TIMEOUT,
                    check=False,
                )
            except subprocess.TimeoutExpired as error:
                raise PeerError(f"{self.name}: {error}") from error
            output.seek(0)
            said = output.read()
        if done.returncode != 0:
            raise PeerError(f"{self.name}: {Path(command[0]).name} ended with {done.returncode}:\n{said}")
        return said


def _contents(source: Path) -> str:
    """Return a fingerprint of the sources, to detect another version."""
    skipped = {"target", "lib", "__pycache__"}
    files = sorted(path for path in source.rglob("*") if path.is_file() and not skipped & set(path.parts))
    return "\n".join(f"{path.relative_to(source)} {sha256(path.read_bytes()).hexdigest()}" for path in files)
