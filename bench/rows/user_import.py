"""An import of users from a file, while the participants are running."""

import csv
from collections.abc import Iterator
from pathlib import Path

from bench.commands import run_command
from bench.installation import installation
from bench.report import Row, ratio_at_most
from bench.rows.starts import first_green
from bench.running import Bench


def user_import(bench: Bench) -> Iterator[Row]:
    """Import users into an empty installation. The command waits for the participants. Measured once."""
    users = bench.size.imported
    with installation(bench.servers, **bench.cheap_hash.settings) as ours:
        first_green(bench.generator, ours.url)
        file = ours.stack.directory / "users.csv"
        _write(file, users)
        said = f"{users} imported, 0 known already, 0 rejected"
        imported = run_command(ours, "import_users", str(file), number=users, said=said)
    yield Row(name=f"import of {users:,} users", unit="1/s", ours=imported.rate, felt=True)
    yield imported.memory_row("that import", goal=ratio_at_most(1.5))


def _write(file: Path, users: int) -> None:
    with file.open("w", encoding="utf-8", newline="") as opened:
        rows = csv.writer(opened)
        rows.writerow(["userId", "userName", "email"])
        rows.writerows([f"imported-{n}", f"Name {n}", f"imported-{n}@example.org"] for n in range(users))
