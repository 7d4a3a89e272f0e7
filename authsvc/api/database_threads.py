"""The threads in which the API queries auth's database, off the event loop and with a time limit."""

import asyncio
from collections.abc import Callable
from typing import Final, TypeVar

from django.db import close_old_connections

from runtime.processes.bounded_pool import BoundedPool

T = TypeVar("T")

THREADS: Final = 4
# Length limit of the queue: seconds of work for a healthy database, and a bound while it is frozen.
READS_MAX: Final = 400
# Time limit in seconds for one piece of work: a frozen database keeps connections open.
READ_WITHIN: Final = 3.0


class DatabaseThreads:
    """A bounded thread pool for database work. For use in one event loop."""

    def __init__(self) -> None:
        self._pool = BoundedPool(THREADS, limit=READS_MAX, name="signup-reader")

    async def run(self, work: Callable[[], T]) -> T:
        """Run `work` and return its result. Raise QueueFullError at once, or TimeoutError after READ_WITHIN seconds."""
        async with asyncio.timeout(READ_WITHIN):
            # Shielded: a thread that hangs stays occupied until it returns, which keeps the queue bounded.
            return await asyncio.shield(self._pool.run(lambda: _with_connection(work)))


def _with_connection(work: Callable[[], T]) -> T:
    close_old_connections()
    try:
        return work()
    finally:
        close_old_connections()
