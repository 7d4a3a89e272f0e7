"""The last lines of a run name the tests that failed, or were skipped for a missing server or program. With CI set, a
missing server fails the run.

tests/plugin.py and tests/setup.sh run as a person would run them, with a PATH that lacks some commands."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.servers.docker import run_within

ROOT = Path(__file__).resolve().parents[2]
Environment = Callable[..., dict[str, str]]


@pytest.fixture
def lacking(tmp_path: Path) -> Environment:
    """This environment's commands without the named ones."""

    def make(*commands: str, **variables: str) -> dict[str, str]:
        for folder in os.environ["PATH"].split(os.pathsep):
            for command in Path(folder).glob("*"):
                link = tmp_path / command.name
                if command.name not in commands and not link.is_symlink():
                    link.symlink_to(command)
        return {"PATH": str(tmp_path), "HOME": str(tmp_path), "LANG": "C.UTF-8", **variables}

    return make


BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def pytest_run(env: dict[str, str], *arguments: str) -> tuple[int, list[str]]:
    """Return its exit code and its output lines."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, (done.stdout + done.stderr).splitlines()


def test_with_ci_true_a_missing_server_fails_the_run_at_once(lacking: Environment) -> None:
    code, lines = pytest_run(lacking("java", *BROWSERS, CI="true"), "--stack=real", "tests/unit/test_settings.py")
    assert code == pytest.ExitCode.USAGE_ERROR
    [said] = [line for line in lines if "With CI=true" in line]
    assert "Apache Kafka needs Java" in said
    assert "Chromium is not installed" in said
    assert "bash tests/setup.sh" in said
    assert not any("passed" in line for line in lines)


def test_outside_ci_tests_of_a_missing_server_are_skipped_and_the_last_lines_say_so(lacking: Environment) -> None:
    code, lines = pytest_run(lacking(*BROWSERS), "--stack=embedded", "tests/e2e/test_page.py")
    assert code == pytest.ExitCode.OK
    [count] = re.findall(r"^(\d+) skipped", lines[-1])
    reason = "Chromium is not installed (Debian: apt-get install chromium)"
    assert lines[-2] == f"Left out: {count} tests that need chromium. {reason}"


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (None, "No Docker engine answers here. IMAGES names no folder that provides it."),
        ("echo 'no cgroups here'; exit 1", "No Docker engine answers here. {folder}/build.sh failed: no cgroups here"),
        ("exit 0", "No Docker engine answers here."),
    ],
)
def test_without_a_docker_engine_the_containers_are_left_out_in_ci_too(
    lacking: Environment, tmp_path_factory: pytest.TempPathFactory, build: str | None, reason: str
) -> None:
    folder = tmp_path_factory.mktemp("images")
    for name in ("build.sh", "engine.sh"):
        (folder / name).write_text(f"#!/bin/sh\n{build}\n")
        (folder / name).chmod(0o755)
    given = [] if build is None else [f"--images={folder}"]
    code, lines = pytest_run(lacking("docker", CI="true"), "--stack=compose", *given, "tests/compose")
    assert code == pytest.ExitCode.OK
    [count] = re.findall(r"^(\d+) skipped", lines[-1])
    assert lines[-2] == f"Left out: {count} tests that need docker. {reason.format(folder=folder)}"


def test_an_engine_that_takes_too_long_is_stopped_with_everything_that_it_started() -> None:
    command = ["sh", "-c", "sleep 987 & sleep 987"]
    assert run_within(command, seconds=1).startswith("it took too long")
    running = subprocess.run(["ps", "-A", "-o", "args="], capture_output=True, text=True, check=True).stdout
    assert "sleep 987" not in running.splitlines()


def test_without_servers_the_last_line_counts_the_skipped_tests(lacking: Environment) -> None:
    code, lines = pytest_run(lacking(), "tests/integration/test_gateway.py", "tests/unit/test_settings.py")
    assert code == pytest.ExitCode.OK
    [count] = re.findall(r"(\d+) deselected", lines[-1])
    advice = "Run them with --stack=embedded, real or compose."
    assert lines[-2] == f"Left out: {count} tests that need servers. {advice}"


def test_the_last_lines_name_the_tests_that_failed(
    lacking: Environment, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("failing")
    fails = "def test_it():\n    assert not 'one line\\n' * 99\n"
    breaks = "import pytest\n\n@pytest.fixture\ndef broken():\n    raise OSError\n\ndef test_it(broken):\n    pass\n"
    for name, content in (("fails", fails), ("breaks", breaks)):
        (folder / f"test_{name}.py").write_text(content)
    code, lines = pytest_run(
        lacking(CI="true"), f"--rootdir={ROOT}", f"--config-file={ROOT}/pyproject.toml", str(folder)
    )
    assert code == pytest.ExitCode.TESTS_FAILED
    assert [re.sub(r" \S*/", " ", line) for line in lines[-3:-1]] == [
        "Failed: test_fails.py::test_it",
        "Error: test_breaks.py::test_it",
    ]


@pytest.mark.parametrize(("ci", "code"), [("true", 1), ("", 0)])
def test_make_setup_names_the_servers_that_it_cannot_install_and_fails_only_in_ci(
    lacking: Environment, ci: str, code: int
) -> None:
    env = lacking("apt-get", "java", "mvn", *BROWSERS, CI=ci)
    command = ["bash", "tests/setup.sh"]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    [said] = [line for line in (done.stdout + done.stderr).splitlines() if "setup: missing: " in line]
    assert "chromium default-jdk-headless" in said
    assert ("With CI=true nothing may be missing" in said) == bool(ci)
    assert ("The tests that need it will be left out." in said) != bool(ci)
