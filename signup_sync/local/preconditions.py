"""What must be so before anything is started; each function says in a line what is wrong and what to do about it."""

import errno
import fcntl
import socket
from pathlib import Path
from typing import TextIO

from signup_sync.local.processes import LOOPBACK


class CannotStart(Exception):  # noqa: N818 - it is the answer to a person, not a fault of the program
    """Why the installation can't start and what to do, in one line."""


def port_number(text: str) -> int:
    """The port that a person named; 0 lets the system choose. Raises CannotStart."""
    if text.isascii() and text.isdigit() and int(text) < 65536:
        return int(text)
    raise CannotStart(f"PORT={text} is no port: give a number from 1 to 65535, as in PORT=8001 make run")


def listen(port: int) -> socket.socket:
    """The socket that the web process will accept from. Raises CannotStart.

    The launcher opens it and keeps it, so that no one can take the port between this check and the start, and
    browsers wait while the web process is started again.
    """
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((LOOPBACK, port))
        listener.listen(1024)
    except OSError as error:
        listener.close()
        reason = "is in use" if error.errno == errno.EADDRINUSE else f"can't be opened ({error.strerror})"
        other = 8001 if port < 1024 else min(port + 1, 65535)
        raise CannotStart(
            f"Port {port} {reason}. End what listens there, or take another port: PORT={other} make run"
        ) from error
    return listener


def hold(data_dir: Path) -> TextIO:
    """The lock file of this data directory, held as long as it is open, so that no two installations share one.

    Its text, written by the holder, is where that one runs. Makes `data_dir` and its folder for logs.
    Raises CannotStart.
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
                f"It runs already: {where}. End that one with Ctrl-C where it was started, or name another folder for"
                f" this one's data: DATA_DIR=... make run"
            ) from None
    except OSError as error:
        raise CannotStart(
            f"{data_dir} can't be written ({error.strerror}). Make it writable, or name another folder for the data:"
            f" DATA_DIR=... make run"
        ) from error
    return lock


def write_address(lock: TextIO, address: str) -> None:
    """Says in the lock file where its holder runs."""
    lock.truncate(0)
    lock.write(address)
    lock.flush()
