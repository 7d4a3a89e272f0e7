"""What runs here tells the project's commands where it is, in <data_dir>/running.env.

A file alone would be believed after a kill -9 as well. So the launcher keeps it locked, and what nobody locks any
more is not read. The lock of run_local itself is no use for that: who asks for it, to see whether it is held, could
keep a launcher from starting that asks in the same moment.
"""

import fcntl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

NAME = "running.env"


@contextmanager
def announced(data_dir: Path, addresses: Mapping[str, str]) -> Iterator[None]:
    """Meanwhile `running_settings` gives `addresses`. For the one that holds `data_dir` (preconditions.hold)."""
    path = data_dir / NAME
    with path.with_suffix(".new").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.writelines(f"{name}={value}\n" for name, value in addresses.items())
        file.flush()
        # Whole and locked from the first moment in which it can be seen.
        Path(file.name).replace(path)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def running_settings(data_dir: Path) -> dict[str, str]:
    """The addresses of the installation that runs on this data directory; none where none runs."""
    try:
        with (data_dir / NAME).open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return dict(line.rstrip("\n").split("=", 1) for line in file)
    except OSError:  # it is not there, or somebody else's
        pass
    return {}
