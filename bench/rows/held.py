"""Held streams and WebSockets, and the memory that a relay adds to a WebSocket."""

import time
from collections.abc import Iterator

from bench.installation import Installation
from bench.processes import pss_kib, threads
from bench.report import Row, at_most
from bench.running import Bench, tell

RATE = 500
FIRST_MS = 300
# Seconds until memory has settled after the last one was opened.
SETTLED = 3
# Additional threads allowed for other reasons: pools start their threads on first use.
THREADS = 8
FORM = "/signup/"


class Footprint:
    """Growth in memory and threads of a role, and in memory of the gateway, since its creation."""

    def __init__(self, ours: Installation, role: str) -> None:
        self._pid, self._gateway = ours.pid(role), ours.caddy.process.pid
        self._role = role
        self._before = self._now()

    def grown(self, n: int) -> tuple[float, int]:
        """Return the KiB per connection for `n` connections, and the total of new threads."""
        time.sleep(SETTLED)
        own, gateway, count = (after - before for after, before in zip(self._now(), self._before, strict=True))
        each = f"{own / n:.1f} KiB each and {count:+.0f} threads; Caddy {gateway / n:.1f} KiB each"
        tell(f"{n} held: {self._role} {each}")
        return own / n, int(count)

    def _now(self) -> tuple[float, float, float]:
        return pss_kib(self._pid), pss_kib(self._gateway), threads(self._pid)


def held(bench: Bench) -> Iterator[Row]:
    """Measure each once: the goal is to hold the connections, not speed."""
    ours, size = bench.ours, bench.size
    bench.generator.signups(ours.url, size.warm_up, at_once=50)
    yield from _streams(bench, ours)
    yield from _sockets(bench, ours)


def _streams(bench: Bench, ours: Installation) -> Iterator[Row]:
    n = bench.size.held
    with ours.without("customer"):
        footprint = Footprint(ours, "auth-1")
        with bench.generator.held_streams(ours.url, n, rate=RATE) as opened:
            tell(f"first event, ms: {opened.first}")
            each, more_threads = footprint.grown(n)
    yield from _rows(f"{n:,} streams held", "auth", each, 20, more_threads, opened.first.p99)


def _sockets(bench: Bench, ours: Installation) -> Iterator[Row]:
    n, relays = bench.size.held, bench.size.relays
    tell(f"opening {n:,} forms")
    with ours.without("customer"), bench.generator.pages(ours.url, FORM, n) as pages:
        footprint = Footprint(ours, "web")
        opened = pages.connect(rate=RATE)
        tell(f"open, ms: {opened.first}")
        each, more_threads = footprint.grown(n)
        tell(f"posting {relays:,} of the forms")
        footprint = Footprint(ours, "web")
        pages.post(relays, at_once=4, until="first")
        relay_each, _ = footprint.grown(relays)
    yield from _rows(f"{n:,} WebSockets held", "web", each, 45, more_threads, opened.first.p99)
    yield Row(name="what a relay adds to each, in web", unit="KiB", ours=relay_each)


def _rows(what: str, role: str, each: float, most: float, more_threads: int, first_ms: float) -> Iterator[Row]:
    yield Row(name=f"{what}, each, in {role}", unit="KiB", ours=each, goal=at_most(most), felt=True)
    yield Row(name=f"{what}, threads more", unit="", ours=more_threads, goal=at_most(THREADS))
    yield Row(name=f"{what}, {RATE} a second, first event p99", unit="ms", ours=first_ms, goal=at_most(FIRST_MS))
