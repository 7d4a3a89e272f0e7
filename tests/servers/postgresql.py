"""PostgreSQL, from Debian's package or the path."""

import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psycopg
from psycopg import sql

from signup_sync.participants import PARTICIPANTS
from tests.servers.process import LOOPBACK, ROOT, Server, dies_with_parent
from tests.waiting import eventually

SERVICES = ("auth", *PARTICIPANTS, "scim")


def _binaries() -> Path | None:
    """Return the directory of initdb and postgres: Debian's newest one, or else the one on the path."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    if debian and (debian[-1] / "initdb").exists():
        return debian[-1]
    found = shutil.which("initdb")
    return Path(found).resolve().parent if found else None


class PostgresqlServer(Server):
    """PostgreSQL with a database for each service.

    fsync is off: a killed server loses nothing that it committed as long as the machine stays up.
    """

    name = "postgresql"
    stop_signal = signal.SIGINT  # "fast": SIGTERM would wait until every client has gone

    @classmethod
    def missing(cls) -> str | None:
        if _binaries() is None:
            return "PostgreSQL is not installed (Debian: apt-get install postgresql)"
        if os.geteuid() == 0 and not (shutil.which("setpriv") and _has_user("postgres")):
            return "PostgreSQL does not run as root, and there is no user `postgres` or no `setpriv` to run it as"
        return None

    def prefix(self) -> Sequence[str]:
        words = dies_with_parent()
        if os.geteuid() == 0:
            words += ["--reuid=postgres", "--regid=postgres", "--init-groups"]
        return words

    def command(self) -> Sequence[str | Path]:
        settings: dict[str, object] = {
            "listen_addresses": LOOPBACK,
            "port": self.port,
            "unix_socket_directories": "",
            "max_connections": 200,
            "fsync": "off",
            "full_page_writes": "off",
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return [str(self.binary("postgres")), "-D", str(self.directory / "data"), *options]

    def prepare(self) -> None:
        if os.geteuid() == 0:
            shutil.chown(self.directory, "postgres")
        initdb = [str(self.binary("initdb")), "-D", str(self.directory / "data"), "-U", "postgres"]
        self.run([*initdb, "--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync"])

    def wait_ready(self) -> None:
        super().wait_ready()
        self.create_databases()

    def is_ready(self) -> bool:
        with suppress(psycopg.OperationalError), psycopg.connect(self.url("postgres"), connect_timeout=5):
            return True
        return False

    @property
    def env(self) -> dict[str, str]:
        return self.env_of("")

    def env_of(self, prefix: str) -> dict[str, str]:
        """The addresses of the databases that `create_databases(prefix)` created."""
        return {f"{service.upper()}_DATABASE_URL": self.url(prefix + service) for service in SERVICES}

    def url(self, database: str) -> str:
        return f"postgres://postgres@{self.address}/{database}"

    def create_databases(self, prefix: str = "") -> None:
        """Create `<prefix>auth`, `<prefix>chat` and `<prefix>customer` unless they exist."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            there = {name for (name,) in connection.execute("SELECT datname FROM pg_database")}
            for name in (prefix + service for service in SERVICES):
                if name not in there:
                    connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))

    def create_services(self, prefix: str) -> None:
        """Create the databases of an installation like production, with deploy/create-databases.sh: each has an owner,
        for migrations, and a role that only reads and writes rows. Their names begin with `prefix`.
        """
        run_create_databases(self, prefix=prefix)

    def require_passwords(self) -> None:
        """Require a password of everybody but the superuser from now on. Open connections stay open."""
        rules = "host all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
        (self.directory / "data" / "pg_hba.conf").write_text(rules)
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute("SELECT pg_reload_conf()")
        nobody = f"postgres://nobody@{self.address}/postgres"
        eventually(lambda: "no password supplied" in _refusal(nobody), what="PostgreSQL has read the new rules")

    def superuser_env(self) -> dict[str, str]:
        """The environment in which libpq's programs connect as the superuser."""
        return {"PGHOST": LOOPBACK, "PGPORT": str(self.port), "PGUSER": "postgres"}

    def run_time_env(self, prefix: str) -> dict[str, str]:
        """The addresses of these databases for every role but migrations."""
        return {f"{service.upper()}_DATABASE_URL": self._url_of(f"{prefix}{service}", "") for service in SERVICES}

    def owner_env(self, prefix: str) -> dict[str, str]:
        """The same for migrations."""
        return {f"{service.upper()}_DATABASE_URL": self._url_of(f"{prefix}{service}", "_owner") for service in SERVICES}

    def _url_of(self, database: str, suffix: str) -> str:
        return f"postgres://{database}{suffix}@{self.address}/{database}"

    def kill(self) -> None:
        """kill -9 the server and its backends: a surviving backend would block the next start."""
        backends = self._backends()
        super().kill()
        for pid in backends:
            _signal(pid, signal.SIGKILL)
        # A zombie process is still in /proc, without its exe.
        eventually(lambda: not any(Path(f"/proc/{pid}/exe").exists() for pid in backends), what="backends are gone")

    def pause(self) -> None:
        super().pause()
        for pid in self._backends():
            _signal(pid, signal.SIGSTOP)

    def resume(self) -> None:
        for pid in self._backends():
            _signal(pid, signal.SIGCONT)
        super().resume()

    def _backends(self) -> list[int]:
        """Return the backends. Each has its own session, so no signal to a group reaches them all."""
        if not self.process.running:
            return []
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in children.read_text().split()] if children.exists() else []

    def binary(self, name: str) -> Path:
        directory = _binaries()
        if directory is None:
            raise RuntimeError(self.missing())
        return directory / name


def run_create_databases(server: PostgresqlServer, *, prefix: str = "", password: str = "test") -> None:
    """Run deploy/create-databases.sh as the superuser."""
    services = [prefix + service for service in SERVICES]
    kinds = ("DATABASE", "OWNER")
    passwords = {f"{service.upper()}_{kind}_PASSWORD": password for service in services for kind in kinds}
    environment = os.environ | passwords | server.superuser_env() | {"SERVICES": " ".join(services)}
    script = ROOT / "deploy" / "create-databases.sh"
    done = subprocess.run([script], env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def _refusal(url: str) -> str:
    """Return the error with which PostgreSQL refuses this connection, or an empty text."""
    try:
        psycopg.connect(url, connect_timeout=5).close()
    except psycopg.OperationalError as error:
        return str(error)
    return ""


def _has_user(name: str) -> bool:
    with suppress(KeyError):
        return bool(pwd.getpwnam(name))
    return False


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)
