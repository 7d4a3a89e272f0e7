"""A thread that runs tasks one after another."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue

from django.db import connections


class Worker:
    """Run tasks on one dedicated thread, which keeps Django's database connections between them.

    Unlike ThreadPoolExecutor's threads it is a daemon: a task that never returns does not keep the process from ending.
    """

    def __init__(self, name: str) -> None:
        self._tasks: SimpleQueue[tuple[Future[None], Callable[[], None]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, work: Callable[[], None]) -> Future[None]:
        """Queue the task. The future completes when the task has run, with its exception if it raised one."""
        future: Future[None] = Future()
        self._tasks.put((future, work))
        return future

    def stop(self, timeout: float) -> None:
        """End the thread after the queued tasks. Wait for it for at most `timeout` seconds."""
        self._tasks.put(None)
        self._thread.join(timeout)

    def _run(self) -> None:
        try:
            while (task := self._tasks.get()) is not None:
                self._do(*task)
                del task  # Otherwise the last batch stays in memory until the next one.
        finally:
            connections.close_all()

    def _do(self, future: Future[None], work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # The future passes it on.
            future.set_exception(error)
        else:
            future.set_result(None)
