"""The pool that hashes passwords and paces the sign-up writer (docs/adr/0008).

The writer starts its next batch when at least as many sign-ups are queued for it as passwords wait to be hashed, or
when ENOUGH are queued. These larger batches let all later steps, in four processes, handle many sign-ups at a time.
There is no timer: a sign-up that arrives alone, or finds a free hashing thread, doesn't wait.
"""

import asyncio
import os
from collections.abc import Callable
from typing import Final, TypeVar

from authsvc.metrics import HASHES_WAITING
from runtime.processes.bounded_pool import BoundedPool

T = TypeVar("T")

# Batch size from which the writer waits for no more: the cost per sign-up falls no further.
ENOUGH: Final = 50


class HashPool:
    """Hashes and checks passwords; at most `limit` may be running or waiting. For use in one event loop."""

    def __init__(self, *, limit: int, threads: int = os.cpu_count() or 1) -> None:
        # One thread per core: argon2 releases the GIL and saturates a core, so more threads would only compete.
        self._pool = BoundedPool(threads, limit=limit, name="hash")
        self._hashed = 0
        self._has_changed = asyncio.Event()

    @property
    def is_full(self) -> bool:
        return self._pool.is_full

    @property
    def waiting(self) -> int:
        """The number of passwords that wait for a thread; their sign-ups will be written next."""
        return self._pool.waiting

    async def run(self, work: Callable[[], T]) -> T:
        """Run `work`, which hashes or checks one password, and return its result. Raise QueueFullError."""
        with HASHES_WAITING.track_inprogress():
            try:
                return await self._pool.run(work)
            finally:
                self.note_hashed()

    def note_hashed(self) -> None:
        """Note that a password has left the pool, whether or not a sign-up follows."""
        self._hashed += 1
        self._has_changed.set()

    def note_queued(self) -> None:
        """Note that a sign-up was queued for the writer."""
        self._has_changed.set()

    async def wait_for_batch(self, count_queued: Callable[[], int]) -> None:
        """Return when the writer should start its next batch."""
        # Count finished hashes too, or this could wait forever while passwords are rejected as they arrive.
        while max(count_queued(), self._hashed) < min(self.waiting, ENOUGH):
            self._has_changed.clear()
            await self._has_changed.wait()
        self._hashed = 0

    def close(self) -> None:
        """Reject new and waiting passwords; finish those being hashed."""
        self._pool.close()
