"""Bare argon2: the cost of hashing a password, and the rate at which the cores hash when they do nothing else."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from argon2.low_level import Type, hash_secret

PASSWORD, SALT = b"nine lives of a bench", b"0123456789abcdef"
# Candidates for the memory (KiB) of the cheap hash.
STEPS = range(64, 8192, 64)


@dataclass(frozen=True, slots=True)
class Cost:
    """Parameters of argon2id with one lane."""

    memory_kib: int
    passes: int

    @property
    def settings(self) -> dict[str, str]:
        """The parameters as the product's settings."""
        return {"ARGON2_MEMORY_KIB": str(self.memory_kib), "ARGON2_TIME_COST": str(self.passes)}

    def hash(self) -> None:
        hash_secret(PASSWORD, SALT, self.passes, self.memory_kib, 1, 32, Type.ID)

    def milliseconds(self, times: int = 40) -> float:
        """Return the CPU time of one hash."""
        begun = time.thread_time()
        for _ in range(times):
            self.hash()
        return (time.thread_time() - begun) * 1000 / times


# OWASP's parameters, which are the product's defaults.
REAL = Cost(19 * 1024, 2)


def cheap() -> Cost:
    """Return a cost that takes about a millisecond here, like the peer's BCrypt with strength 4."""
    per_step = Cost(1024, 1).milliseconds()
    return Cost(min(STEPS, key=lambda kib: abs(kib * per_step / 1024 - 1.0)), 1)


@dataclass(frozen=True, slots=True)
class Bare:
    """Bare hashing with one thread per core, like in the product's pool."""

    rate: float  # hashes per second
    cpu_ms: float  # CPU time of one hash


def bare(cost: Cost, seconds: float) -> Bare:
    end = time.monotonic() + seconds

    def work(_: int) -> tuple[int, float]:
        begun, done = time.thread_time(), 0
        while time.monotonic() < end:
            cost.hash()
            done += 1
        return done, time.thread_time() - begun

    cores = os.cpu_count() or 1
    begun = time.monotonic()
    with ThreadPoolExecutor(cores) as pool:
        counts, used = zip(*pool.map(work, range(cores)), strict=True)
    done = sum(counts)
    return Bare(done / (time.monotonic() - begun), 1000 * sum(used) / done)
