"""A thread pool with a bounded queue: work beyond its capacity is refused at once (docs/adr/0022)."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from runtime.errors import TransientError

T = TypeVar("T")


class QueueFullError(TransientError):
    """The queue is full: new work would wait too long to be worth accepting (backpressure)."""


class BoundedPool:
    """Run calls on `threads` threads, off the event loop. At most `limit` calls may be running or waiting."""

    def __init__(self, threads: int, *, limit: int, name: str) -> None:
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._threads = threads
        self._limit = limit
        self._taken = 0
        self._is_closed = False

    @property
    def is_full(self) -> bool:
        return self._is_closed or self._taken >= self._limit

    @property
    def waiting(self) -> int:
        """Number of calls that are waiting for a thread."""
        return max(0, self._taken - self._threads)

    async def run(self, work: Callable[[], T]) -> T:
        """Return the result of `work`. Raises QueueFullError at once if the pool is full or closed."""
        if self.is_full:
            raise QueueFullError
        self._taken += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, work)
        except asyncio.CancelledError:
            if self._is_closed:
                raise QueueFullError from None
            raise
        finally:
            self._taken -= 1

    def close(self) -> None:
        """Refuse new and waiting calls from now on. Running calls finish."""
        self._is_closed = True
        self._executor.shutdown(wait=False, cancel_futures=True)
