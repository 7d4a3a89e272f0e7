"""Print the CPU milliseconds of one bcrypt hash while all cores hash. It runs on a Python peer's own environment.

Arguments: the strength, the seconds, the password.
"""

import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import bcrypt  # type: ignore[import-not-found]  # installed only in the peer's environment


def main(strength: int, seconds: float, password: bytes) -> None:
    end = time.monotonic() + seconds

    def work(_: int) -> tuple[int, float]:
        begun, done = time.thread_time(), 0
        while time.monotonic() < end:
            bcrypt.hashpw(password, bcrypt.gensalt(strength))
            done += 1
        return done, time.thread_time() - begun

    cores = os.cpu_count() or 1
    with ThreadPoolExecutor(cores) as pool:
        counts, used = zip(*pool.map(work, range(cores)), strict=True)
    print(1000 * sum(used) / sum(counts))


main(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3].encode())
