"""Processes that are kept running and end with the process that started them."""

import asyncio
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.logs import formatter
from signup_sync.local.processes import KeptProcess, LocalRole, ProcessGroup, how_it_ended, short, stop_all
from tests.waiting import eventually, eventually_async

SLEEP = ("/bin/sh", "-c", "echo started; sleep 60")
STUBBORN = ("/bin/sh", "-c", "trap '' TERM; echo started; while :; do sleep 60; done")


@pytest.fixture
def group() -> Iterator[ProcessGroup]:
    with ProcessGroup() as group:
        yield group


class Told(list[str]):
    """The lines printed to the terminal."""


def kept(command: tuple[str, ...], *, group: ProcessGroup, folder: Path, told: Told) -> KeptProcess:
    role = LocalRole("a role", command, has_health=False)
    return KeptProcess(role, group=group, environment=os.environ, folder=folder, log_folder=folder, tell=told.append)


def members(group_id: int) -> list[int]:
    """The processes of this group that have not ended."""
    lines = subprocess.run(["ps", "-A", "-o", "pid=,pgid=,stat="], capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in lines.splitlines()]
    return [int(pid) for pid, pgid, stat in rows if int(pgid) == group_id and not stat.startswith("Z")]


async def test_a_process_that_ends_is_started_again_and_the_person_is_notified(
    group: ProcessGroup, tmp_path: Path
) -> None:
    told = Told()
    process = kept(("/bin/sh", "-c", "echo Oops: it broke >&2; exit 3"), group=group, folder=tmp_path, told=told)
    task = asyncio.create_task(process.keep_running())
    await eventually_async(lambda: asyncio.sleep(0, len(told) >= 2))
    task.cancel()
    assert told[0].startswith("a role ended with exit code 3 (Oops: it broke; see ")
    assert "starts again in 0.5 s" in told[0]
    assert "starts again in 1 s" in told[1]
    await stop_all([process], grace=1)


async def test_sigterm_ends_a_willing_process_at_once(group: ProcessGroup, tmp_path: Path) -> None:
    await stopped_within(15, SLEEP, grace=30, group=group, folder=tmp_path)


async def test_a_stubborn_process_is_killed_after_the_grace(group: ProcessGroup, tmp_path: Path) -> None:
    await stopped_within(15, STUBBORN, grace=0.2, group=group, folder=tmp_path)


async def stopped_within(
    seconds: float, command: tuple[str, ...], *, grace: float, group: ProcessGroup, folder: Path
) -> None:
    process = kept(command, group=group, folder=folder, told=Told())
    task = asyncio.create_task(process.keep_running())
    await eventually_async(lambda: asyncio.sleep(0, "started" in process.log.read_text()))
    task.cancel()
    begun_at = time.monotonic()
    await stop_all([process], grace=grace)
    assert time.monotonic() - begun_at < seconds
    assert not process.is_running


def line(level: int) -> str:
    """A role's log lines for people."""
    return formatter("console").format(logging.LogRecord("some.logger", level, "", 0, "said", None, None))


async def test_only_warnings_and_worse_are_shown_and_not_twice(group: ProcessGroup, tmp_path: Path) -> None:
    told = Told()
    process = kept(SLEEP, group=group, folder=tmp_path, told=told)
    lines = [line(level) for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR)]
    half = len(lines[-1]) // 2
    process.log.write_text("\n".join([*lines, "Traceback (most recent call last):", lines[-1][:half]]))
    process.show_warnings()
    process.show_warnings()
    assert told == [f"[a role] {line}" for line in lines[2:]]
    with process.log.open("a") as log:
        log.write(lines[-1][half:] + "\n")
    process.show_warnings()
    assert told[2:] == [f"[a role] {lines[-1]}"]


async def test_a_flood_of_warnings_is_counted(group: ProcessGroup, tmp_path: Path) -> None:
    told = Told()
    process = kept(SLEEP, group=group, folder=tmp_path, told=told)
    process.log.write_text(f"{line(logging.WARNING)}\n" * 1000)
    process.show_warnings()
    assert len(told) == 6
    assert "995 more" in told[-1]


async def test_the_log_before_this_start_is_kept(group: ProcessGroup, tmp_path: Path) -> None:
    for words in ("the oldest", "why it crashed"):
        kept(SLEEP, group=group, folder=tmp_path, told=Told()).log.write_text(words)
    process = kept(SLEEP, group=group, folder=tmp_path, told=Told())
    assert process.log.read_text() == ""
    assert (tmp_path / "a-role.log.1").read_text() == "why it crashed"
    # An empty log belongs to a failed start, and must not replace one with content.
    kept(SLEEP, group=group, folder=tmp_path, told=Told())
    assert (tmp_path / "a-role.log.1").read_text() == "why it crashed"


def test_a_group_ends_with_its_holder_even_by_kill_9(tmp_path: Path) -> None:
    """Including the children of its members, and processes that ignore SIGTERM."""
    holder = """
import subprocess, sys, time
from signup_sync.local.processes import ProcessGroup
with ProcessGroup() as group:
    subprocess.Popen(["/bin/sh", "-c", "trap '' TERM HUP; sleep 61 & sleep 62"], process_group=group.id)
    print(group.id, flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", holder], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        group_id = int(process.stdout.readline())
        eventually(lambda: len(members(group_id)) >= 4, what="leader, shell and two sleeps run")
        process.send_signal(signal.SIGKILL)
        eventually(lambda: not members(group_id), what="the group has ended")


def test_the_ends_of_processes_are_described() -> None:
    assert how_it_ended(0) == "ended with exit code 0"
    assert how_it_ended(-9) == "was ended (Killed)"


def test_paths_below_the_current_directory_are_shown_relative(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert short(tmp_path / "var" / "log") == "var/log"
    assert short(Path("/elsewhere")) == "/elsewhere"
