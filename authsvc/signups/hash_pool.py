"""The pool that hashes passwords, and how it paces the writer of sign-ups (docs/adr/0008).

The writer's next batch begins when at least as many sign-ups wait for it as passwords wait for a hash, and with ENOUGH
in any case. So the steps that follow, in four processes, handle many sign-ups at a time. There is no timer: a sign-up
that comes alone, or finds a free thread, does not wait.
"""

import asyncio
import os
from collections.abc import Callable
from typing import Final, TypeVar

from authsvc.metrics import HASHES_WAITING
from runtime.processes.bounded_pool import BoundedPool

T = TypeVar("T")

# Sign-ups that are worth a batch in any case: one of more costs no less for each.
ENOUGH: Final = 50


class HashPool:
    """Hashes and checks passwords; at most `limit` may be running or waiting. For one event loop."""

    def __init__(self, *, limit: int, threads: int = os.cpu_count() or 1) -> None:
        # As many threads as cores: argon2 releases the GIL and keeps a core busy, so more of them only compete.
        self._pool = BoundedPool(threads, limit=limit, name="hash")
        self._hashed = 0
        self._has_changed = asyncio.Event()

    @property
    def is_full(self) -> bool:
        return self._pool.is_full

    @property
    def waiting(self) -> int:
        """How many passwords wait for a thread; their sign-ups are the next to be written."""
        return self._pool.waiting

    async def run(self, work: Callable[[], T]) -> T:
        """Returns what `work` returns, which hashes or checks one password. Raises QueueFullError."""
        with HASHES_WAITING.track_inprogress():
            try:
                return await self._pool.run(work)
            finally:
                self.note_hashed()

    def note_hashed(self) -> None:
        """One password less is coming, whether a sign-up follows or not."""
        self._hashed += 1
        self._has_changed.set()

    def note_queued(self) -> None:
        """One sign-up more waits for the writer."""
        self._has_changed.set()

    async def wait_for_batch(self, count_queued: Callable[[], int]) -> None:
        """Returns when the writer should begin its next batch."""
        # The hashed are counted too: passwords may be refused as fast as others come.
        while max(count_queued(), self._hashed) < min(self.waiting, ENOUGH):
            self._has_changed.clear()
            await self._has_changed.wait()
        self._hashed = 0

    def close(self) -> None:
        """From now on it refuses who comes, and who waits; what runs is finished."""
        self._pool.close()
