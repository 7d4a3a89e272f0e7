"""A clock, and cores that are shared as Linux's fair scheduler shares them."""

import heapq
import itertools
import math
from collections.abc import Callable
from typing import Final

Action = Callable[[], None]

# Linux's tick in milliseconds (CONFIG_HZ=250, as on the machine of docs/scaling.md).
TICK: Final = 4.0


def linux_slice(cores: int) -> float:
    """Return Linux's slice in milliseconds: the kernel's base of 0.7 times 1 + log2 of the cores, of which at most
    eight count. `se.slice` in /proc/self/sched shows it."""
    return 0.7 * (1 + int(math.log2(min(cores, 8))))


class Clock:
    """Runs timers in the order of simulated time. Times are in milliseconds."""

    def __init__(self) -> None:
        self.now = 0.0
        self._timers: list[tuple[float, int, Action]] = []
        self._order = itertools.count()

    def after(self, delay: float, action: Action) -> None:
        heapq.heappush(self._timers, (self.now + delay, next(self._order), action))

    def run(self, until: float = math.inf) -> None:
        """Run until nothing is left or the time has come."""
        while self._timers:
            if self._timers[0][0] > until:
                self.now = until
                return
            self.now, _, action = heapq.heappop(self._timers)
            action()


class Share:
    """The CPU that a process or a thread has had, as the scheduler counts it."""

    __slots__ = ("_since", "_used", "running")

    def __init__(self) -> None:
        self.running = 0  # on how many cores
        self._used = 0.0
        self._since = 0.0

    def used(self, now: float) -> float:
        return self._used + self.running * (now - self._since)

    def run(self, change: int, now: float) -> None:
        self._used, self._since = self.used(now), now
        self.running += change

    def raise_to(self, least: float, now: float) -> None:
        self._used, self._since = max(least, self.used(now)), now


class Job:
    """A piece of work for one thread."""

    __slots__ = ("action", "begun_at", "left", "picked_at", "process", "thread")

    def __init__(self, process: Share, thread: Share, left: float, action: Action) -> None:
        self.process = process
        self.thread = thread
        self.left = left  # milliseconds
        self.action = action
        self.begun_at = 0.0
        self.picked_at = 0.0  # when the thread got its core; the job before it may have begun then


class Machine(Clock):
    """Cores under a small model of Linux's fair scheduler (EEVDF with autogroups).

    The process that has had the least CPU runs first, and within it the thread that has had the least. Sleep earns no
    credit: a process that wakes counts as having had as much as the least served of those that compete. A process that
    wakes interrupts one that has had as much or more, if that one has been running for a slice, and otherwise waits
    for the next tick. So short work goes ahead of threads that compute all the time.
    """

    def __init__(self, cores: int, *, speed: float = 1.0, slice_: float | None = None, tick: float = TICK) -> None:
        """`speed` is the share of each core that other programs leave."""
        super().__init__()
        self._free = cores
        self._speed = speed
        self._slice = linux_slice(cores) if slice_ is None else slice_
        self._tick = tick
        self._is_ticking = False
        self._running: set[Job] = set()
        self._ready: list[Job] = []
        self._ending: Job | None = None
        self._least = 0.0  # CPU credited to a process that wakes
        self.used = 0.0  # milliseconds of CPU

    def compute(self, process: Share, thread: Share, cpu: float, action: Action) -> None:
        """Run `action` after the thread has had `cpu` milliseconds of a core. A thread does one thing at a time."""
        self.used += cpu
        job = Job(process, thread, cpu / self._speed, action)
        if self._ending and self._ending.thread is thread:
            # The thread goes on without having slept, on its core and in its slice.
            picked_at, self._ending = self._ending.picked_at, None
            self._begin(job, picked_at)
            return
        self._place(job)
        if self._free:
            self._free -= 1
            self._begin(job, self.now)
            return
        longest = max(self._interruptible(), key=self._turn, default=None)
        if longest and self._turn(job) <= self._turn(longest):
            self._interrupt(longest, job)
        else:
            self._ready.append(job)
        self._start_ticking()

    def _place(self, job: Job) -> None:
        """Make sure that the process, or the thread within its process, gets no credit for having slept."""
        awake = [*self._running, *self._ready]
        if threads := [other.thread for other in awake if other.process is job.process]:
            job.thread.raise_to(min(thread.used(self.now) for thread in threads), self.now)
        elif awake:
            rivals = {other.process for other in awake}
            self._least = max(self._least, min(process.used(self.now) for process in rivals))
            job.process.raise_to(self._least, self.now)

    def _turn(self, job: Job) -> tuple[float, float]:
        return job.process.used(self.now), job.thread.used(self.now)

    def _interruptible(self) -> list[Job]:
        return [job for job in self._running if self.now - job.picked_at >= self._slice]

    def _begin(self, job: Job, picked_at: float) -> None:
        job.begun_at, job.picked_at = self.now, picked_at
        job.process.run(1, self.now)
        job.thread.run(1, self.now)
        self._running.add(job)
        begun_at = self.now
        self.after(job.left, lambda: self._end(job, begun_at))

    def _leave(self, job: Job) -> None:
        self._running.remove(job)
        job.process.run(-1, self.now)
        job.thread.run(-1, self.now)

    def _end(self, job: Job, begun_at: float) -> None:
        if job not in self._running or job.begun_at != begun_at:
            return  # It was interrupted, and ends later.
        self._leave(job)
        self._ending = job
        job.action()
        if self._ending is None:
            return
        self._ending = None
        if self._ready:
            self._begin(self._next(), self.now)
        else:
            self._free += 1

    def _next(self) -> Job:
        job = min(self._ready, key=self._turn)
        self._ready.remove(job)
        return job

    def _interrupt(self, job: Job, other: Job) -> None:
        self._leave(job)
        job.left -= self.now - job.begun_at
        self._ready.append(job)
        self._begin(other, self.now)

    def _start_ticking(self) -> None:
        if not self._is_ticking:
            self._is_ticking = True
            self.after(self._tick - self.now % self._tick, self._on_tick)

    def _on_tick(self) -> None:
        self._is_ticking = False
        for job in sorted(self._interruptible(), key=self._turn, reverse=True):
            if self._ready and min(map(self._turn, self._ready)) < self._turn(job):
                self._interrupt(job, self._next())
        if self._ready:
            self._start_ticking()
