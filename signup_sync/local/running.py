"""Publishes the addresses of a running local installation to the project's commands, in <data_dir>/running.env.

After a kill -9, the file would remain. So the launcher keeps it locked, and a file that is not locked is ignored. The
lock of run_local itself can't serve for this: testing whether it is held could prevent a launcher from starting at the
same moment.
"""

import fcntl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

NAME = "running.env"


@contextmanager
def announced(data_dir: Path, addresses: Mapping[str, str]) -> Iterator[None]:
    """Publish `addresses` to `running_settings` within the context. The caller holds `data_dir`
    (preconditions.hold)."""
    path = data_dir / NAME
    with path.with_suffix(".new").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.writelines(f"{name}={value}\n" for name, value in addresses.items())
        file.flush()
        # Rename it only now, so that it is complete and locked from the moment it becomes visible.
        Path(file.name).replace(path)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def running_settings(data_dir: Path) -> dict[str, str]:
    """Return the addresses of the installation that runs on this data directory, or {} if none is running."""
    try:
        with (data_dir / NAME).open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return dict(line.rstrip("\n").split("=", 1) for line in file)
    except OSError:  # the file doesn't exist, or belongs to another user
        pass
    return {}
