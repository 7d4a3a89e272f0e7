"""Running several targets of the Makefile, and thus several test runs, at the same time, as `make test` does."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers import free_port
from tests.waiting import PATIENCE, eventually

ROOT = Path(__file__).resolve().parents[2]
MAKEFILE = """
one two:
	@touch $@ && until [ -e one ] && [ -e two ]; do sleep 0.01; done && echo met
bad:
	@until [ -e begun ]; do sleep 0.01; done && touch bad && seq 90 && echo "FAILED here" && exit 3
slow:
	@touch begun && until [ -e bad ]; do sleep 0.01; done && touch slow
endless:
	@touch endless && exec sleep 986
later:
	@touch later
"""


def side_by_side(folder: Path, *lanes: str, **env: str) -> subprocess.Popen[str]:
    (folder / "Makefile").write_text(MAKEFILE)
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **env}
    command = [sys.executable, "-m", "tests.side_by_side", *lanes]
    return subprocess.Popen(command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_lanes_run_concurrently_and_each_line_names_its_target(tmp_path: Path) -> None:
    run = side_by_side(tmp_path, "one later", "two")
    output, _ = run.communicate(timeout=PATIENCE)
    assert run.returncode == 0
    assert {"== make one", "== make two", "== make later", "one: met", "two: met"} == set(output.splitlines())
    assert (tmp_path / "later").exists()


def test_a_failure_is_named_with_its_command_and_no_later_target_starts(tmp_path: Path) -> None:
    run = side_by_side(tmp_path, "bad later", "slow")
    _, errors = run.communicate(timeout=PATIENCE)
    assert run.returncode == 1
    repeated = errors.splitlines()
    assert repeated.pop() == "make test: 'bad' failed; later steps did not run. To run it alone: make bad"
    assert "bad: FAILED here" in repeated
    assert "bad: 90" in repeated, "the lines are the last ones"
    assert "bad: 1" not in repeated
    assert (tmp_path / "slow").exists(), "what ran beside it has finished"
    assert not (tmp_path / "later").exists()


def test_sigterm_ends_the_targets_that_run_and_starts_no_other(tmp_path: Path) -> None:
    run = side_by_side(tmp_path, "endless later")
    eventually((tmp_path / "endless").exists)
    run.send_signal(signal.SIGTERM)
    run.communicate(timeout=PATIENCE)
    assert run.returncode == 1
    assert not (tmp_path / "later").exists()
    processes = subprocess.run(["ps", "-A", "-o", "args="], capture_output=True, text=True, check=True).stdout
    assert "sleep 986" not in processes.splitlines()


@pytest.mark.parametrize("is_ours", [True, False], ids=["given out here", "free"])
def test_a_port_that_a_test_run_gave_out_is_not_given_out_by_another(is_ours: bool) -> None:
    """Even if it has no listener."""
    port = free_port()
    ports = [port] if is_ours else [free_port(), *range(14_000, 14_050)]
    code = f"from tests.servers import process; process.PORTS = {ports}; print(process.free_port())"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    if is_ours:
        assert "no free port" in done.stderr
    else:
        assert int(done.stdout) in ports[1:]


def test_a_lane_that_ends_by_an_error_has_failed(tmp_path: Path) -> None:
    run = side_by_side(tmp_path, "later", MAKE="/nowhere/make")
    _, errors = run.communicate(timeout=PATIENCE)
    assert run.returncode == 1
    assert "make test: 'later' failed" in errors
