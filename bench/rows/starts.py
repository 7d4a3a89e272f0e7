"""Start-up time until the first sign-up is all green, and idle memory after it."""

import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from bench.generator import Generator, LoadError
from bench.installation import ROLES, installation, servers
from bench.peer import Start
from bench.processes import family, pss_kib
from bench.report import Row, at_most, middle, ratio_at_most, rows_against
from bench.running import Bench, mib, tell
from tests.servers import Process, free_port
from tests.servers.process import LOOPBACK
from tests.waiting import eventually

# Seconds after which a start counts as failed.
START_TIMEOUT = 90
STOP_TIMEOUT = 15


def start(bench: Bench) -> Iterator[Row]:
    """Measure the start of `make run` on existing databases, of the production roles, and of the peers, each alone."""
    with tempfile.TemporaryDirectory(dir=bench.directory) as data:
        with make_run(Path(data), port := free_port()):
            first_green(bench.generator, f"http://{LOOPBACK}:{port}")
        local = [_make_run(bench, Path(data)) for _ in range(bench.size.rounds)]
    ours: list[Start] = []
    peers: dict[str, list[Start]] = {peer.name: [] for peer in bench.peers}
    for _ in range(bench.size.rounds):
        ours.append(_production(bench))
        for peer in bench.peers:
            if started := bench.start_peer(peer):
                peers[peer.name].append(started)
                tell(f"the {peer.name}: {started.seconds:.1f} s, its roles {started.roles_seconds:.1f} s")
            bench.stop_peers()
    yield Row(name="`make run`, warm, to all green", unit="s", ours=middle(local), goal=at_most(8), felt=True)
    for name, seconds in _KINDS.items():
        yield from rows_against(
            {peer: middle(map(seconds, starts)) for peer, starts in peers.items()},
            name=name,
            unit="s",
            ours=middle(map(seconds, ours)),
            goal=ratio_at_most(0.333),
            felt=True,
        )


_KINDS: Mapping[str, Callable[[Start], float]] = {
    "production roles, to all green": lambda start: start.roles_seconds,
    "all of production from nothing, to all green": lambda start: start.seconds,
}


def memory(bench: Bench) -> Iterator[Row]:
    """Measure the idle memory of the roles and the gateway after the first sign-up."""
    ours, peers = bench.ours, bench.running_peers()
    first_green(bench.generator, ours.url)
    pids = {name: ours.pid(name) for name in ROLES} | {"caddy": ours.caddy.process.pid}
    used = {name: pss_kib(pid) for name, pid in pids.items()}
    tell("MiB: " + ", ".join(f"{name} {mib([kib]):.0f}" for name, kib in used.items()))
    yield from rows_against(
        {f"{peer.name}'s": mib(map(pss_kib, peer.role_pids)) for peer in peers},
        name="memory of the six roles and the gateway, idle (PSS)",
        unit="MiB",
        ours=mib(used.values()),
        goal=ratio_at_most(0.4),
        felt=True,
    )


def _production(bench: Bench) -> Start:
    settings = bench.cheap_hash.settings
    begun = time.monotonic()
    with servers() as fresh, installation(fresh, **settings) as ours:
        first_green(bench.generator, ours.url)
        all_seconds = time.monotonic() - begun
        roles = ours.stack.roles.values()
        for role in roles:
            role.stop()
        begun = time.monotonic()
        for role in roles:
            role.launch()
        first_green(bench.generator, ours.url)
        took = Start(all_seconds, time.monotonic() - begun)
    tell(f"ours: {took.seconds:.1f} s, the roles {took.roles_seconds:.1f} s")
    return took


def _make_run(bench: Bench, data: Path) -> float:
    begun = time.monotonic()
    with make_run(data, port := free_port()):
        first_green(bench.generator, f"http://{LOOPBACK}:{port}")
        took = time.monotonic() - begun
    tell(f"make run: {took:.1f} s")
    return took


@contextmanager
def make_run(data: Path, port: int, **settings: str) -> Iterator[Process]:
    """Run `make run` as a user would, with its data in `data`; stop it with Ctrl-C at the end."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    variables = {"PORT": str(port), "DATA_DIR": str(data), "VENV": sys.prefix}
    process = Process("make run", ["make", "run"], env=kept | variables | settings, log=data / "make-run.log")
    process.start()
    try:
        yield process
    finally:
        members = list(family(process.pid))
        # Like a terminal: signal the whole foreground group.
        os.killpg(process.pid, signal.SIGINT)
        eventually(lambda: not any(Path(f"/proc/{pid}/exe").exists() for pid in members), STOP_TIMEOUT, what="it ended")
        process.kill()


def first_green(generator: Generator, url: str) -> None:
    """Wait until a sign-up is all green, trying with new users until one is."""
    end = time.monotonic() + START_TIMEOUT
    while time.monotonic() < end:
        try:
            generator.signups(url, 1, timeout=20)
        except LoadError:
            time.sleep(0.05)
        else:
            return
    raise LoadError(f"no sign-up was all green within {START_TIMEOUT} s")
