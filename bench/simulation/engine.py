"""A clock, and cores that all running jobs share equally, as Linux's scheduler shares them among busy threads."""

import heapq
import itertools
import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

Action = Callable[[], None]
Item = TypeVar("Item")


class Machine:
    """Runs timers and jobs in the order of simulated time. Times are in milliseconds.

    With more jobs than cores, each progresses at the rate cores/jobs. Every job's end is kept as a point on a clock
    that advances at that rate, so that a change of the rate moves none of them.
    """

    def __init__(self, cores: float) -> None:
        self.now = 0.0
        self._cores = cores
        self._timers: list[tuple[float, int, Action]] = []
        self._jobs: list[tuple[float, int, Action]] = []
        self._progress = 0.0  # of each job since the start
        self._order = itertools.count()
        self.used = 0.0  # milliseconds of CPU

    def after(self, delay: float, action: Action) -> None:
        heapq.heappush(self._timers, (self.now + delay, next(self._order), action))

    def compute(self, cpu: float, action: Action) -> None:
        """Run `action` after `cpu` milliseconds of a core."""
        self.used += cpu
        heapq.heappush(self._jobs, (self._progress + cpu, next(self._order), action))

    def run(self, until: float = math.inf) -> None:
        """Run until nothing is left or the time has come."""
        while self._timers or self._jobs:
            rate = min(1.0, self._cores / len(self._jobs)) if self._jobs else 1.0
            job_ends = self.now + (self._jobs[0][0] - self._progress) / rate if self._jobs else math.inf
            timer_ends = self._timers[0][0] if self._timers else math.inf
            end = min(job_ends, timer_ends)
            if end > until:
                self._progress += (until - self.now) * rate
                self.now = until
                return
            self._progress += (end - self.now) * rate
            self.now = end
            _, _, action = heapq.heappop(self._jobs if job_ends <= timer_ends else self._timers)
            action()


class Process:
    """Threads that take jobs in the order of their arrival."""

    def __init__(self, machine: Machine, threads: int = 1) -> None:
        self._machine = machine
        self._free = threads
        self._waiting: deque[tuple[float, Action]] = deque()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def do(self, cpu: float, action: Action) -> None:
        self._waiting.append((cpu, action))
        self._next()

    def _next(self) -> None:
        while self._free and self._waiting:
            cpu, action = self._waiting.popleft()
            self._free -= 1
            self._machine.compute(cpu, lambda action=action: self._done(action))  # type: ignore[misc]

    def _done(self, action: Action) -> None:
        self._free += 1
        action()
        self._next()


Step = Callable[[int, Action], None]


class BatchStage(Generic[Item]):
    """Takes everything that has arrived, up to `most`, through its steps, and only then the next batch."""

    def __init__(
        self,
        steps: Sequence[Step],
        deliver: Callable[[list[Item]], None],
        *,
        most: int = 500,
        may_begin: Callable[[int], bool] = lambda _: True,
    ) -> None:
        """A step gets the size of the batch and what to do afterwards. `may_begin` gets the number that waits."""
        self._steps = steps
        self._deliver = deliver
        self._most = most
        self._may_begin = may_begin
        self._queue: list[Item] = []
        self._is_busy = False
        self.is_away = False
        self.batches = 0

    @property
    def waiting(self) -> int:
        return len(self._queue)

    def add(self, *items: Item) -> None:
        self._queue += items
        self.look()

    def look(self) -> None:
        """Begin a batch if one may begin."""
        if self._queue and not self._is_busy and not self.is_away and self._may_begin(len(self._queue)):
            batch, self._queue = self._queue[: self._most], self._queue[self._most :]
            self._is_busy = True
            self.batches += 1
            self._step(0, batch)

    def _step(self, number: int, batch: list[Item]) -> None:
        if number < len(self._steps):
            self._steps[number](len(batch), lambda: self._step(number + 1, batch))
            return
        self._is_busy = False
        self._deliver(batch)
        self.look()
