"""The connections of a web process: how many it may hold, and how long closing one may take."""

import asyncio
import resource
from typing import Any, Final

# Seconds for a client to read the last bytes of a connection that is being closed.
CLOSES_WITHIN: Final = 10.0
# File descriptors reserved for databases, Redis, Kafka and files.
RESERVED_FILES: Final = 256


def connections_max() -> int:
    """Return the number of connections that this process may hold. Raises its open-file limit to the hard limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        soft = 65_536 if hard == resource.RLIM_INFINITY else hard
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return max(soft - RESERVED_FILES, RESERVED_FILES)


class ClosingTransport:
    """A transport that, once closed, doesn't wait forever for its client to read the rest."""

    __slots__ = ("_loop", "_transport")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def close(self) -> None:
        self._transport.close()
        if self._transport.get_write_buffer_size():
            self._loop.call_later(CLOSES_WITHIN, self._transport.abort)
