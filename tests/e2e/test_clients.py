"""`make client` generates clients with which a program signs a person up, reads the state, and gets typed errors."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.conftest import Person
from tests.servers.process import ROOT
from tests.stack import Stack

pytestmark = pytest.mark.needs("application", "node")

CLIENTS = ROOT / "var" / "clients"
# Each program signs somebody up, waits for the lights, and sends a form with an invalid address.
PROGRAMS = {
    "python": (CLIENTS / "generator" / "bin" / "python", CLIENTS / "python" / "example.py"),
    "typescript": ("node", CLIENTS / "typescript" / "dist" / "example.js"),
}


@pytest.fixture(scope="module")
def generated() -> None:
    """Both clients, as `make client` generates them; installing the generators takes long only the first time."""
    command = ["sh", "clients/generate.sh", sys.executable]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr


def run(program: Sequence[str | Path], *arguments: str) -> list[dict]:
    done = subprocess.run([*program, *arguments], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.usefixtures("generated")
@pytest.mark.parametrize("language", PROGRAMS)
def test_a_generated_client_signs_a_person_up_and_gets_a_typed_problem(language: str, stack: Stack, person: Person):
    state, problem = run(PROGRAMS[language], stack.base_url, person.user_id, person.email)

    assert state["complete"]
    assert {light["status"] for light in state["services"].values()} == {"SUCCESS"}
    assert problem == {"status": 422, "pointers": ["/email"]}
