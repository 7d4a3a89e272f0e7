"""Threads with a queue that has an end: what can't be taken now is refused at once (docs/adr/0022)."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from runtime.errors import TransientError

T = TypeVar("T")


class QueueFullError(TransientError):
    """So much waits already that what comes now would wait too long to be worth taking."""


class BoundedPool:
    """Runs calls on `threads` threads, off the event loop; at most `limit` may be running or waiting."""

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
        """How many wait for a thread."""
        return max(0, self._taken - self._threads)

    async def run(self, work: Callable[[], T]) -> T:
        """Returns what `work` returns. Raises QueueFullError at once when too much waits."""
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
        """From now on it refuses who comes, and who waits; what runs is finished."""
        self._is_closed = True
        self._executor.shutdown(wait=False, cancel_futures=True)
