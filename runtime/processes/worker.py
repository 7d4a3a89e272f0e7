"""A thread that does one thing after another."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue

from django.db import connections


class Worker:
    """Runs what it is given on one thread of its own, where Django's connections live.

    A daemon, unlike the threads of ThreadPoolExecutor: work that never returns does not keep the process from ending.
    """

    def __init__(self, name: str) -> None:
        self._tasks: SimpleQueue[tuple[Future[None], Callable[[], None]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, work: Callable[[], None]) -> Future[None]:
        """Starts the work when what was given before is done. The future has its result or what it raised."""
        future: Future[None] = Future()
        self._tasks.put((future, work))
        return future

    def stop(self, timeout: float) -> None:
        """Ends the thread when it has nothing to do any more; leaves it alone after `timeout` seconds."""
        self._tasks.put(None)
        self._thread.join(timeout)

    def _run(self) -> None:
        try:
            while (task := self._tasks.get()) is not None:
                self._do(*task)
                del task  # or it would keep the last batch until the next
        finally:
            connections.close_all()

    def _do(self, future: Future[None], work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # whoever waits for the future gets it
            future.set_exception(error)
        else:
            future.set_result(None)
