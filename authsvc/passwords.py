"""Hashing of passwords: argon2id at OWASP's parameters, in a bounded pool off the event loop."""

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from django.conf import settings
from django.contrib.auth.hashers import Argon2PasswordHasher

from authsvc.metrics import HASHES_WAITING

T = TypeVar("T")


class Argon2idHasher(Argon2PasswordHasher):
    """Django's argon2id with the parameters of OWASP's password storage cheat sheet (19 MiB, t=2, p=1)."""

    memory_cost = settings.ARGON2_MEMORY_KIB
    time_cost = settings.ARGON2_TIME_COST
    parallelism = 1


class HashQueueFullError(Exception):
    """More passwords wait than HASH_QUEUE_LIMIT allows; the next one would wait too long to be worth taking."""


class HashPool:
    """As many threads as cores: argon2 releases the GIL and keeps a core busy, so more of them only compete."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="hash")
        self._waiting = 0

    async def run(self, work: Callable[[], T]) -> T:
        """Runs `work` in the pool. Raises HashQueueFullError at once when the queue is too long."""
        if self._waiting >= settings.HASH_QUEUE_LIMIT:
            raise HashQueueFullError
        self._waiting += 1
        try:
            with HASHES_WAITING.track_inprogress():
                return await asyncio.get_running_loop().run_in_executor(self._executor, work)
        finally:
            self._waiting -= 1
