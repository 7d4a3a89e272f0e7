"""Preconditions of the local installation. Each function reports in one line what is wrong and what to do about it."""

import errno
import fcntl
import os
import socket
from pathlib import Path
from typing import TextIO

from signup_sync.local.processes import LOOPBACK


class CannotStart(Exception):  # noqa: N818 - a message for the user, not an error in the program
    """The installation can't start. The message says in one line why, and what to do."""


def port_number(text: str) -> int:
    """Parse the port that the user gave; 0 lets the system choose. Raises CannotStart."""
    if text.isascii() and text.isdigit() and int(text) < 65536:
        return int(text)
    raise CannotStart(f"PORT={text} is not a port: give a number from 1 to 65535, as in PORT=8001 make run")


def reserve_port(port: int) -> socket.socket:
    """Open the socket from which the web process will accept connections. Raises CannotStart.

    The launcher keeps it open, so that no other process can take the port between this check and the start, and so that
    browsers wait while the web process restarts.
    """
    try:
        return socket.create_server((LOOPBACK, port), backlog=1024)
    except OSError as error:
        number = error.errno or 0
        reason = "is in use" if number == errno.EADDRINUSE else f"can't be opened ({os.strerror(number)})"
        other = 8001 if port < 1024 else min(port + 1, 65535)
        raise CannotStart(
            f"Port {port} {reason}. Stop the program that uses it, or choose another port: PORT={other} make run"
        ) from error


def hold(data_dir: Path) -> TextIO:
    """Lock this data directory as long as the returned file is open, so that no two installations share it.

    The holder writes its address to the file. Creates `data_dir` and its log folder. Raises CannotStart.
    """
    try:
        (data_dir / "log").mkdir(parents=True, exist_ok=True)
        lock = (data_dir / "run_local.lock").open("a+")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with lock:
                lock.seek(0)
                where = lock.read().strip() or "it is just starting"
            raise CannotStart(
                f"It is already running: {where}. Stop it with Ctrl-C where it was started, or choose another data"
                f" folder: DATA_DIR=... make run"
            ) from None
    except OSError as error:
        raise CannotStart(
            f"{data_dir} can't be written ({error.strerror}). Make it writable, or choose another data folder:"
            f" DATA_DIR=... make run"
        ) from error
    return lock


def write_address(lock: TextIO, address: str) -> None:
    """Write the holder's address to the lock file."""
    lock.truncate(0)
    lock.write(address)
    lock.flush()
