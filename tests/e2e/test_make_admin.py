"""`make admin`, with and without a terminal."""

import os
import select
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

import pytest

from tests.conftest import Person, new_person
from tests.e2e.clone import MakeRun, make

pytestmark = pytest.mark.needs("application")


def admin_variables(person: Person) -> dict[str, str]:
    return {"ADMIN_USER_ID": person.user_id, "ADMIN_EMAIL": person.email, "ADMIN_PASSWORD": person.password}


def test_an_administrator_is_created_while_the_installation_runs(
    project: Path, running: MakeRun, person: Person
) -> None:
    done = make(project, "admin", running.env | admin_variables(person))
    assert done.returncode == 0, done.stderr
    assert person.password not in done.stdout + done.stderr
    again = make(project, "admin", running.env | admin_variables(person))
    assert again.returncode != 0
    assert again.stderr.splitlines()[0] == "CommandError: ADMIN_USER_ID: This user ID is taken."


def test_without_a_terminal_the_required_variables_are_named(project: Path, running: MakeRun, person: Person) -> None:
    named = {"ADMIN_USER_ID": person.user_id}
    done = make(project, "admin", running.env | named)
    assert done.returncode != 0
    said = done.stderr.splitlines()[0]
    assert "There is no terminal to ask at" in said
    assert said.endswith("set ADMIN_EMAIL and ADMIN_PASSWORD in the environment.")


class Terminal:
    """A command at its own terminal: wait for a prompt, then type the answer."""

    IN_A_TERMINAL = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"

    def __init__(self, project: Path, env: dict[str, str], *command: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", self.IN_A_TERMINAL, *command],
            cwd=project, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self.shown = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def answer(self, question: str, text: str) -> None:
        self.wait_for(question)
        self._type(text)

    def press_until_it_ends(self, key: str) -> None:
        """Press repeatedly, like a person: a Ctrl-C between the question and the wait for its answer has no effect."""
        for _ in range(60):
            self._type(key)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(1)
                return

    def _type(self, text: str) -> None:
        assert self.process.stdin
        with suppress(BrokenPipeError):
            self.process.stdin.write(text.encode())
            self.process.stdin.flush()

    def wait_for(self, text: str) -> None:
        """Read until the terminal shows this text, and forget the text up to there."""
        assert self.process.stdout
        deadline = time.monotonic() + 60
        while text not in self.shown:
            assert select.select([self.process.stdout], [], [], deadline - time.monotonic())[0], self.shown
            read = os.read(self.process.stdout.fileno(), 4096)
            assert read, f"it ended without {text!r}:\n{self.shown}"
            self.shown += read.decode(errors="replace")
        self.shown = self.shown.partition(text)[2]

    def end(self) -> tuple[int, str]:
        """Return the exit code, and the output since the last answer."""
        rest, _ = self.process.communicate(timeout=60)
        return self.process.returncode, self.shown + rest.decode()


def test_at_a_terminal_questions_repeat_until_the_answers_are_valid(project: Path, running: MakeRun) -> None:
    person, taken = new_person(), new_person()
    assert make(project, "admin", running.env | admin_variables(taken)).returncode == 0
    with Terminal(project, running.env, "make", "admin") as terminal:
        terminal.answer("User ID: ", f"{taken.user_id.upper()}\n")
        terminal.wait_for("This user ID is taken.")
        terminal.answer("User ID: ", f"{person.user_id}\n")
        terminal.answer("Email address: ", f"{taken.email}\n")
        terminal.wait_for("This email address is taken.")
        terminal.answer("Email address: ", f"{person.email}\n")
        terminal.answer("Password: ", "12345678\n")
        terminal.answer("Password again: ", "12345678\n")
        terminal.wait_for("This password is")
        terminal.answer("Password: ", f"{person.password}\n")
        terminal.answer("Password again: ", "another one\n")
        terminal.wait_for("do not match")
        terminal.answer("Password: ", f"{person.password}\n")
        terminal.answer("Password again: ", f"{person.password}\n")
        code, shown = terminal.end()
        assert code == 0
        assert f"{person.user_id} can now log in at /admin/." in shown
        assert person.password not in shown


@pytest.mark.parametrize("key", ["\x03", "\x04"])
def test_ctrl_c_and_ctrl_d_end_the_questions_without_creating_an_administrator(
    project: Path, running: MakeRun, key: str
) -> None:
    person = new_person()
    with Terminal(project, running.env, "make", "admin") as terminal:
        terminal.answer("User ID: ", f"{person.user_id}\n")
        terminal.answer("Email address: ", f"{person.email}\n")
        terminal.wait_for("Password: ")
        terminal.press_until_it_ends(key)
        code, shown = terminal.end()
        assert code != 0
        assert "Traceback" not in shown
        assert make(project, "admin", running.env | admin_variables(person)).returncode == 0
