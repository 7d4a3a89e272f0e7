"""`manage.py purge --every`, as a deployment keeps it running."""

import secrets
from io import StringIO
from pathlib import Path

import psycopg
import pytest
from django.core.management import CommandError, call_command
from django.db import connections

from authsvc.management.commands.purge import LOCK
from tests.servers import free_port
from tests.stack import MANAGE, RoleProcess, Stack
from tests.waiting import eventually


def expired_session(stack: Stack) -> str:
    key = secrets.token_hex(16)
    stack.query(
        "auth",
        "INSERT INTO django_session (session_key, session_data, expire_date)"
        f" VALUES ('{key}', '', '2001-01-01 00:00:00+00:00')",
    )
    return key


def is_gone(stack: Stack, key: str) -> bool:
    return stack.query("auth", f"SELECT 1 FROM django_session WHERE session_key = '{key}'") == []


def test_purge_every_runs_at_once_and_repeatedly_and_ends_on_sigterm(stack: Stack, tmp_path: Path):
    port = free_port()
    purge = RoleProcess(
        "purge",
        (*MANAGE, "purge", "--every", "1s"),
        env=stack.env | {"HEALTH_PORT": str(port)},
        log=tmp_path / "purge.log",
        port=port,
    )
    try:
        for _ in range(2):
            key = expired_session(stack)
            if not purge.running:
                purge.start()
            eventually(lambda key=key: is_gone(stack, key), what="the expired session is gone")
        assert purge.stop() == 0
    finally:
        purge.kill()


@pytest.mark.parametrize("time", ["0s", "24", "h", "-1h", "1.5h", "1w", "9999999s", "١h", "", "1h " + "x" * 100])
def test_an_invalid_interval_is_refused_in_one_line(time: str):
    with pytest.raises(CommandError, match="such as 24h"):
        call_command("purge", f"--every={time}")


@pytest.mark.needs("postgresql")
@pytest.mark.django_db(transaction=True)
def test_a_second_purge_is_refused_while_the_first_runs():
    settings = connections["default"].get_connection_params()
    other = {name: value for name, value in settings.items() if name in ("dbname", "user", "host", "port", "password")}
    with psycopg.connect(**other) as first:
        first.execute("SELECT pg_advisory_lock(%s)", [LOCK])
        with pytest.raises(CommandError, match="Another purge is already running"):
            call_command("purge", stdout=StringIO())
    call_command("purge", stdout=StringIO())
