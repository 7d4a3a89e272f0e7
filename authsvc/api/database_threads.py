"""The threads in which the API works on auth's database, off the event loop and within a time limit."""

import asyncio
from collections.abc import Callable
from typing import Final, TypeVar

from django.db import close_old_connections

from runtime.processes.bounded_pool import BoundedPool

T = TypeVar("T")

THREADS: Final = 4
# Readings that may wait: seconds' worth of a database that answers, and little of one that does not.
READS_MAX: Final = 400
# Seconds that work on the database may take: a frozen one breaks no connection.
READ_WITHIN: Final = 3.0


class DatabaseThreads:
    """For one event loop."""

    def __init__(self) -> None:
        self._pool = BoundedPool(THREADS, limit=READS_MAX, name="signup-reader")

    async def run(self, work: Callable[[], T]) -> T:
        """Returns what `work` returns. Raises QueueFullError at once, and TimeoutError after READ_WITHIN seconds."""
        async with asyncio.timeout(READ_WITHIN):
            # Shielded: a thread that hangs counts as taken until it returns, so that the queue keeps its end.
            return await asyncio.shield(self._pool.run(lambda: _with_connection(work)))


def _with_connection(work: Callable[[], T]) -> T:
    close_old_connections()
    try:
        return work()
    finally:
        close_old_connections()
