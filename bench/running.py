"""One run of the benchmark: the processes that several rows share, and the number of measurements."""

import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from bench import hashing
from bench.generator import Generator
from bench.installation import Installation, Servers, installation, servers
from bench.peer import Peer, PeerError, Start

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Size:
    """The amount of work. SMALL serves to test the benchmark itself."""

    rounds: int
    signups: int  # per round under load
    peer_signups: int
    alone: int  # per round of one at a time
    warm_up: int
    peer_warm_up: int
    seconds: float  # of measurements with a fixed duration
    held: int
    relays: int
    users: int  # per database, for growth
    replayed: int
    backfilled: int
    imported: int


FULL = Size(3, 8000, 4000, 300, 10_000, 24_000, 10, 5000, 1000, 2_000_000, 1_000_000, 100_000, 300_000)
SMALL = Size(1, 1500, 800, 60, 1000, 2000, 4, 400, 100, 50_000, 20_000, 5000, 5000)


class Bench:
    """Starts the processes that rows need on first use, and stops all of them in `close`."""

    def __init__(self, directory: Path, size: Size, peer_sources: Sequence[Path] = ()) -> None:
        self.directory = directory
        self.size = size
        self.peers = [Peer(source, directory) for source in peer_sources]
        self.peer_failures: dict[str, str] = {}
        self._running: list[Peer] = []
        self._open = ExitStack()

    def close(self) -> None:
        self.stop_peers()
        self._open.close()

    @cached_property
    def generator(self) -> Generator:
        return Generator(self.directory)

    @cached_property
    def cheap_hash(self) -> hashing.Cost:
        cost = hashing.cheap()
        tell(f"cheap hash: argon2id {cost.memory_kib} KiB, t={cost.passes}: {cost.milliseconds():.2f} ms of a core")
        return cost

    @cached_property
    def servers(self) -> Servers:
        tell("starting PostgreSQL and Kafka")
        return self._open.enter_context(servers())

    @cached_property
    def ours(self) -> Installation:
        """Our installation with the cheap hash and one process per role."""
        shared = self.servers
        tell("starting our roles")
        return self._open.enter_context(installation(shared, **self.cheap_hash.settings))

    def start_peer(self, peer: Peer) -> Start | None:
        """Start a peer from nothing. If it fails, the run continues without it."""
        if peer.name in self.peer_failures:
            return None
        tell(f"starting the {peer.name}")
        try:
            started = peer.start()
        except PeerError as error:
            self.peer_failures[peer.name] = str(error)
            tell(str(error))
            peer.stop()
            return None
        self._running.append(peer)
        return started

    def running_peers(self) -> Sequence[Peer]:
        """Start the peers that are not running, and return those that are."""
        for peer in self.peers:
            if peer not in self._running:
                self.start_peer(peer)
        return self._running

    def stop_peers(self) -> None:
        """Stop the peers, so that they take no CPU from measurements without them."""
        while self._running:
            self._running.pop().stop()


def in_turn(rounds: int, **measure: Callable[[], T]) -> dict[str, list[T]]:
    """Measure each in turn, `rounds` times, so that other load on the machine affects all of them."""
    measured: dict[str, list[T]] = {name: [] for name in measure}
    for number in range(rounds):
        for name, take in measure.items():
            measured[name].append(take())
            latest = measured[name][-1]
            said = f"{latest:.1f}" if isinstance(latest, float) else str(latest)
            tell(f"round {number + 1} of {rounds}, {name}: {said}")
    return measured


def tell(text: str) -> None:
    """Print a line of progress to stderr; stdout is only for the table and the JSON."""
    print(f"  {text}", file=sys.stderr, flush=True)


def machine() -> str:
    """Describe the machine."""
    cpus, memory = Path("/proc/cpuinfo").read_text(), Path("/proc/meminfo").read_text()
    model = re.search(r"^model name\s*: (.*)$", cpus, re.MULTILINE)
    total = re.search(r"^MemTotal:\s*(\d+) kB", memory, re.MULTILINE)
    words = [f"{os.cpu_count()} cores", model[1] if model else "", f"{int(total[1]) / 2**20:.0f} GiB" if total else ""]
    return ", ".join([*filter(None, words), f"Linux {os.uname().release}", f"load average {os.getloadavg()[0]:.1f}"])


def mib(kib: Iterable[float]) -> float:
    return sum(kib) / 1024
