"""The queues of the model: processes with their threads, and stages that work in batches."""

import math
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, Generic, TypeVar

from bench.simulation.engine import Action, Machine, Share

Item = TypeVar("Item")

# Milliseconds below which rounding makes two times differ.
_ROUNDING: Final = 1e-6


class Process:
    """A process whose threads take jobs in the order of their arrival. By default, it has a thread for every job."""

    def __init__(self, machine: Machine, threads: float = math.inf, *, share: Share | None = None) -> None:
        """`share` is that of the process to which these threads belong, if it has others."""
        self._machine = machine
        self.share = share or Share()
        self._idle: list[Share] = []
        self._more = threads  # threads that have not been needed yet
        self._waiting: deque[tuple[float, Action]] = deque()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def do(self, cpu: float, action: Action) -> None:
        """Run `action` when a thread has spent `cpu` milliseconds on this job."""
        self._waiting.append((cpu, action))
        self._next()

    def _next(self) -> None:
        while self._waiting and (self._idle or self._more):
            if self._idle:
                thread = self._idle.pop()
            else:
                self._more -= 1
                thread = Share()
            cpu, action = self._waiting.popleft()
            self._machine.compute(self.share, thread, cpu, partial(self._done, thread, action))

    def _done(self, thread: Share, action: Action) -> None:
        # The thread takes its next job before anybody hears of the end of this one.
        self._idle.append(thread)
        self._next()
        action()


class BatchStage(Generic[Item]):
    """Takes everything that has arrived, up to `most`, through its steps, and only then the next batch."""

    def __init__(
        self,
        machine: Machine,
        steps: Sequence[Callable[[list[Item], Action], None]],
        deliver: Callable[[list[Item]], None],
        *,
        most: int = 500,
        gathers: float = 0.0,
        may_begin: Callable[[int], bool] = lambda _: True,
    ) -> None:
        """A step gets the batch and what to do afterwards. A single item waits `gathers` milliseconds for a
        second one. `may_begin` gets the number that waits."""
        self._machine = machine
        self._steps = steps
        self._deliver = deliver
        self._most = most
        self._gathers = gathers
        self._may_begin = may_begin
        self._queue: list[Item] = []
        self._since = 0.0  # when the first of the queue could have begun
        self._in_work = 0  # items of the current batch
        self.is_away = False
        self.batches = 0

    @property
    def waiting(self) -> int:
        return len(self._queue)

    @property
    def unread(self) -> int:
        """The consumer lag: offsets are committed after the batch, so its items count, too."""
        return len(self._queue) + self._in_work

    def add(self, *items: Item) -> None:
        if not self._queue:
            self._since = self._machine.now
        self._queue += items
        self.look()

    def look(self) -> None:
        """Begin a batch if one may begin."""
        if not self._queue or self._in_work or self.is_away or not self._may_begin(len(self._queue)):
            return
        left = self._since + self._gathers - self._machine.now
        if len(self._queue) == 1 and left > _ROUNDING:
            self._machine.after(left, self.look)
            return
        batch, self._queue = self._queue[: self._most], self._queue[self._most :]
        self._in_work = len(batch)
        self.batches += 1
        self._step(0, batch)

    def _step(self, number: int, batch: list[Item]) -> None:
        if number < len(self._steps):
            self._steps[number](batch, lambda: self._step(number + 1, batch))
            return
        self._in_work = 0
        self._since = self._machine.now
        self._deliver(batch)
        self.look()
