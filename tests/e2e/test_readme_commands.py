"""The commands that the README names, typed in a clone, beside `make run` and without it."""

import json
import os
import re
import shlex
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.e2e.clone import MakeRun, all_green, environment
from tests.servers import free_port
from tests.servers.process import ROOT, http_status
from tests.waiting import eventually

README = (ROOT / "README.md").read_text()

pytestmark = pytest.mark.needs("application")


def of_the_readme(text: str) -> list[str]:
    """The lines of the README's code blocks that have this text, without the remark at the end, to be typed."""
    blocks = re.findall(r"^```\w*\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    joined = "".join(blocks).replace("\\\n", "")
    lines = [re.sub(r"\s+# .*", "", line) for line in joined.splitlines() if text in line]
    assert lines
    return lines


def typed(line: str, project: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(line, shell=True, cwd=project, env=env, capture_output=True, text=True, timeout=120)


def test_the_readmes_commands_work_beside_make_run(project: Path, running: MakeRun) -> None:
    [curl] = of_the_readme("curl -N")
    done = typed(curl.replace("127.0.0.1:8000", f"127.0.0.1:{running.port}"), project, running.env)
    [last] = [json.loads(line[5:]) for line in done.stdout.splitlines() if line.startswith("data:")][-1:]
    assert all_green([last])
    # Commands that need a dead letter, a second factor, a file or a user to remove are tested elsewhere.
    elsewhere = re.compile("show|replay|discard|reset_two_factor|users.csv|forget")
    lines = [line for line in of_the_readme(".venv/bin/python manage.py") if not elsewhere.search(line)]
    for line in [*of_the_readme("replay_signups"), *lines]:
        done = typed(line, project, running.env)
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    assert "1 would be sent" in typed(*of_the_readme("--user-id mina.k"), project, running.env).stdout


def roles_of_the_readme() -> list[str]:
    """The commands of the table of roles; the gateway's is tested with compose.yaml's."""
    commands = re.findall(r"^\| [^|]+ \| `(python manage\.py [^`]+)` \|", README, re.MULTILINE)
    assert len(commands) > 6
    return commands


def test_the_readmes_roles_start_and_end_beside_make_run(project: Path, running: MakeRun, tmp_path: Path) -> None:
    roles: dict[int, subprocess.Popen[bytes]] = {}
    with ExitStack() as cleanup, (tmp_path / "log").open("wb") as log:
        for command in roles_of_the_readme():
            if "migrate_all" not in command:
                port = free_port()
                env = running.env | {"HEALTH_PORT": str(port), "PATH": f"{sys.prefix}/bin:{os.environ['PATH']}"}
                words = shlex.split(command.replace("8000", str(port)))
                roles[port] = subprocess.Popen(words, cwd=project, env=env, stdout=log, stderr=subprocess.STDOUT)
                cleanup.callback(roles[port].wait)
                cleanup.callback(roles[port].kill)
        for port, role in roles.items():
            eventually(lambda port=port: http_status(port, "/health/ready") == 200, 60, what=f"{role.args} is ready")
        for role in roles.values():
            role.terminate()
        assert {role.wait(timeout=60) for role in roles.values()} == {0}


def test_without_a_running_installation_commands_that_need_kafka_report_that(project: Path, tmp_path: Path) -> None:
    env = environment(DATA_DIR=str(tmp_path))
    assert typed(".venv/bin/python manage.py migrate_all", project, env).returncode == 0
    for line in ("replay_signups --all", "consume_events chat", "relay_signups", "reconcile"):
        done = typed(f".venv/bin/python manage.py {line}", project, env)
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1].startswith("There is no Kafka here: `make run`")
        assert "Traceback" not in done.stderr
