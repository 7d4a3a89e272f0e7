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
    """A network of its own with a loopback. Needs root."""

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
        """A sysctl under net., for this network alone."""
        with self.entered():
            Path("/proc/sys", *setting.split(".")).write_text(value)


def connect(here: Namespace, there: Namespace) -> str:
    """A cable between the two; the address of `here`. `unplug` takes the cable away."""
    ip("link", "add", "cable", "netns", here.name, "type", "veth", "peer", "name", "cable", "netns", there.name)
    for number, namespace in enumerate((here, there), 1):
        namespace.ip("address", "add", f"10.177.0.{number}/24", "dev", "cable")
        namespace.ip("link", "set", "cable", "up")
    return "10.177.0.1"


def unplug(namespace: Namespace) -> None:
    """Nothing passes any more, neither data nor the end of a connection."""
    namespace.ip("link", "set", "cable", "down")


def missing() -> str | None:
    """The reason why there are no namespaces here, and how to get them; None if there are."""
    if shutil.which("ip") is None:
        return "`ip` is not installed (Debian: apt-get install iproute2)"
    if os.geteuid() != 0 or not _is_allowed():
        return "only root may make network namespaces (as root, in a container with the capability SYS_ADMIN)"
    return None


def _is_allowed() -> bool:
    """A container may have taken even root's right to make one."""
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
