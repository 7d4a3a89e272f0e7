"""A backfill: a new service receives the users who signed up before it existed."""

import time
from collections.abc import Iterator

from bench.installation import Installation, installation
from bench.report import Row
from bench.rows.growth import TABLES, fill, run_replay
from bench.rows.starts import first_green
from bench.running import Bench, tell

NEW = "customer"
TIMEOUT = 600


def backfill(bench: Bench) -> Iterator[Row]:
    """Add a service to an installation with many users, as docs/adding-a-participant.md describes it. Measured once."""
    users = bench.size.backfilled
    before = {"SIGNUP_SERVICES": "auth,chat"}
    with installation(bench.servers, **bench.cheap_hash.settings, **before) as ours:
        ours.stack.roles[NEW].stop()
        first_green(bench.generator, ours.url)
        fill(ours, users)
        signups = _count(ours, "auth", "SELECT count(*) FROM authsvc_signup")
        ours.restart(SIGNUP_SERVICES=f"auth,chat,{NEW}")
        begun = time.monotonic()
        sent = run_replay(ours, signups, "--all", "--service", NEW)
        _wait_until_decided(ours)
        rate = signups / (time.monotonic() - begun)
        tell(f"{rate:,.0f}/s until all green, the command itself {sent.rate:,.0f}/s")
        _check(ours, signups)
    yield Row(name=f"backfill of {users:,} users into a new service, to all green", unit="1/s", ours=rate, felt=True)


def _wait_until_decided(ours: Installation) -> None:
    end = time.monotonic() + TIMEOUT
    while unfinished := _count(ours, "auth", "SELECT count(*) FROM authsvc_signup WHERE pending_count > 0"):
        if time.monotonic() > end:
            raise RuntimeError(f"{unfinished} sign-ups are still waiting after {TIMEOUT} s")
        time.sleep(0.25)


def _check(ours: Installation, signups: int) -> None:
    """Raise RuntimeError unless the new service has every user, and every sign-up a green light for it."""
    green = f"SELECT count(*) FROM authsvc_signup WHERE lights::text LIKE '%{NEW}%' AND failed_count = 0"
    stored = _count(ours, NEW, f"SELECT count(*) FROM {TABLES[NEW][0]}")
    if (lights := _count(ours, "auth", green)) != signups or stored != signups:
        raise RuntimeError(f"of {signups} sign-ups, {stored} are stored in {NEW}, and {lights} are green")


def _count(ours: Installation, service: str, query: str) -> int:
    return int(ours.stack.query(service, query)[0][0])
