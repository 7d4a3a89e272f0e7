"""Network namespaces for tests: machines that can be disconnected without notice to the other side."""

import ctypes
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


class Namespace:
    """A separate network with a loopback interface. Needs root."""

    def __init__(self) -> None:
        self.name = f"signup-{secrets.token_hex(4)}"

    def __enter__(self) -> Self:
        ip("netns", "add", self.name)
        self.ip("link", "set", "lo", "up")
        return self

    def __exit__(self, *_: object) -> None:
        ip("netns", "del", self.name)

    def ip(self, *words: str) -> None:
        ip("-n", self.name, *words)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Put the sockets, processes and threads that this thread creates into this network."""
        with Path("/proc/thread-self/ns/net").open() as before, Path("/run/netns", self.name).open() as inside:
            _enter(inside.fileno())
            try:
                yield
            finally:
                _enter(before.fileno())

    def set(self, setting: str, value: str) -> None:
        """Set a sysctl under net., for this network only."""
        with self.entered():
            Path("/proc/sys", *setting.split(".")).write_text(value)


def connect(here: Namespace, there: Namespace) -> str:
    """Connect the two networks. Return the address of `here`. `unplug` cuts the connection."""
    ip("link", "add", "cable", "netns", here.name, "type", "veth", "peer", "name", "cable", "netns", there.name)
    for number, namespace in enumerate((here, there), 1):
        namespace.ip("address", "add", f"10.177.0.{number}/24", "dev", "cable")
        namespace.ip("link", "set", "cable", "up")
    return "10.177.0.1"


def unplug(namespace: Namespace) -> None:
    """Cut the connection: neither data nor the end of a connection passes any more."""
    namespace.ip("link", "set", "cable", "down")


def missing() -> str | None:
    """Return why there are no namespaces here, and how to get them; None if they are available."""
    if shutil.which("ip") is None:
        return "`ip` is not installed (Debian: apt-get install iproute2)"
    if os.geteuid() != 0 or not _is_allowed():
        return "only root may make network namespaces (as root, in a container with the capability SYS_ADMIN)"
    return None


def _is_allowed() -> bool:
    """Whether this process may create a namespace. In a container, even root may lack the right."""
    try:
        with Namespace():
            return True
    except subprocess.CalledProcessError:
        return False


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


def _enter(fd: int) -> None:
    if _libc.setns(fd, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns failed")
