"""The sign-up rate and a replay with millions of users."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
from psycopg import sql

from bench.commands import MeasuredCommand, run_command
from bench.installation import Installation, installation
from bench.report import Row, at_least, middle, ratio_at_least, ratio_at_most
from bench.rows.pace import AT_ONCE, warm_up
from bench.rows.starts import first_green
from bench.running import Bench, in_turn, tell

TABLES = {
    "auth": ("authsvc_user", "authsvc_signup"),
    "chat": ("chatsvc_chatuser",),
    "customer": ("customersvc_customer",),
}
# The columns that differ in the n-th row: keys that are distributed like those of the load, so that the two interleave;
# a UUIDv7 in the order of time; and a different second in the past. All other columns are copied from the one sign-up
# that is multiplied, so that new columns need no change here.
OWN = {
    "user_id": "name",
    "user_id_key": "name",
    "email": "name || '@example.org'",
    "owner_signup_id": "uuid",
    "signup_id": "uuid",
    "created_at": "at",
    "completed_at": "at",
    "date_joined": "at",
}
# A sign-up whose ticket has expired has lost its hash (ADR 0040).
OWN_OF_SIGNUP = {"id": "uuid", "password": "''"}
MULTIPLY = """
    INSERT INTO {table} ({columns}) SELECT {values}
    FROM (SELECT * FROM {table} LIMIT 1) AS original,
        generate_series(1, {users}) AS n,
        LATERAL (SELECT
            'b' || left(md5(n::text), 16) AS name,
            (lpad(to_hex(1700000000000 + n), 12, '0') || '70008' || right(md5(n::text), 15))::uuid AS uuid,
            timestamptz '{begin}' + n * interval '1 second' AS at
        ) AS own
"""
BEGIN = "2020-01-01 00:00:00+00"
# The first serial key: far beyond the values of the sequence.
FIRST_ID = 1_000_000_000


def growth(bench: Bench) -> Iterator[Row]:
    """Compare a second installation, filled with users, with the empty one."""
    size, empty = bench.size, bench.ours
    with installation(bench.servers, **bench.cheap_hash.settings) as full:
        first_green(bench.generator, full.url)
        fill(full, size.users)
        warm_up(bench, empty)
        warm_up(bench, full)
        rates = in_turn(
            size.rounds,
            empty=lambda: bench.generator.signups(empty.url, size.signups, at_once=AT_ONCE).rate,
            full=lambda: bench.generator.signups(full.url, size.signups, at_once=AT_ONCE).rate,
        )
        yield Row(
            name=f"with {size.users:,} users in each database",
            unit="1/s",
            ours=middle(rates["full"]),
            other=middle(rates["empty"]),
            against="empty",
            goal=ratio_at_least(0.9),
        )
        for role in ("chat", "customer"):
            full.stack.roles[role].stop()
        replayed = replay(full, size.replayed)
    yield Row(name=f"replay of {size.replayed:,}", unit="1/s", ours=replayed.rate, goal=at_least(5000), felt=True)
    yield replayed.memory_row("that replay", goal=ratio_at_most(1.1))


def fill(full: Installation, users: int) -> None:
    """Multiply the only sign-up of the installation."""
    begun = time.monotonic()
    tell(f"filling the databases with {users:,} users each")
    with ThreadPoolExecutor(2) as pool:
        jobs = [
            pool.submit(_multiply, full.stack.owner_env[f"{service.upper()}_DATABASE_URL"], table, users)
            for service, tables in TABLES.items()
            for table in tables
        ]
        for job in jobs:
            job.result()
    tell(f"filled in {time.monotonic() - begun:.0f} s")


def _multiply(url: str, table: str, users: int) -> None:
    own = OWN | (OWN_OF_SIGNUP if table == "authsvc_signup" else {"id": f"{FIRST_ID} + n"})
    with psycopg.connect(url, autocommit=True) as connection:
        described = connection.execute(sql.SQL("SELECT * FROM {} LIMIT 0").format(sql.Identifier(table))).description
        columns = [column.name for column in described or ()]
        query = MULTIPLY.format(
            table=table,
            columns=", ".join(columns),
            values=", ".join(own.get(column, f"original.{column}") for column in columns),
            users=users,
            begin=BEGIN,
        )
        connection.execute("SET synchronous_commit = off")
        connection.execute(query.encode())
        connection.execute(sql.SQL("VACUUM ANALYZE {}").format(sql.Identifier(table)))


def replay(full: Installation, signups: int) -> MeasuredCommand:
    """Replay the oldest of the multiplied sign-ups, while no consumer is running."""
    with psycopg.connect(full.stack.env["AUTH_DATABASE_URL"]) as connection:
        until = connection.execute(
            f"SELECT to_char((timestamptz '{BEGIN}' + {signups + 1} * interval '1 second') AT TIME ZONE 'UTC',"
            " 'YYYY-MM-DD\"T\"HH24:MI:SS+00:00')"
        ).fetchone()
    assert until is not None
    tell(f"replaying {signups:,} sign-ups")
    return run_replay(full, signups, "--until", until[0])


def run_replay(full: Installation, signups: int, *options: str) -> MeasuredCommand:
    """Run the command that replays, and check that it sent so many."""
    said = f"{signups} sent, 0 skipped, 0 failed"
    return run_command(full, "replay_signups", *options, number=signups, said=said)
