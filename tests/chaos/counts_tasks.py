"""Run the web application so that it reports on request how many tasks its event loop has.

`python -m tests.chaos.counts_tasks <file> -- manage.py serve …` writes the number to the file at each SIGUSR1.
"""

import asyncio
import signal
import sys
from pathlib import Path

from tests.chaos.launching import run, set_up, start_through
from tests.stack import RoleProcess
from tests.waiting import eventually


def start_counting(role: RoleProcess) -> None:
    """Start the role so that `tasks_of` can query it."""
    start_through(role, "tests.chaos.counts_tasks", str(_file_of(role)))


def tasks_of(role: RoleProcess) -> int:
    file = _file_of(role)
    file.unlink(missing_ok=True)
    role.signal(signal.SIGUSR1)
    eventually(file.exists, what=f"{role.name} counts its tasks")
    return int(file.read_text())


def _file_of(role: RoleProcess) -> Path:
    return role.log_path.with_suffix(".tasks")


def main(file: str, _: str, *command: str) -> None:
    set_up(command)

    def tell(*_: object) -> None:
        # In the main thread, whose loop is the application's.
        written = Path(f"{file}.new")
        written.write_text(str(len(asyncio.all_tasks())))
        written.rename(file)

    signal.signal(signal.SIGUSR1, tell)
    run(command)


if __name__ == "__main__":
    main(*sys.argv[1:])
