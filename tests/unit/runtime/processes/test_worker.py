"""The thread on which handlers run."""

import threading

import pytest
from django.db import connections

from runtime.processes.worker import Worker
from tests.waiting import PATIENCE, eventually


@pytest.fixture
def worker():
    worker = Worker("test")
    yield worker
    worker.stop(PATIENCE)


def test_all_work_runs_in_its_order_on_one_thread_of_its_own(worker):
    seen: list[tuple[int, int]] = []
    for number in range(5):
        done = worker.submit(lambda number=number: seen.append((number, threading.get_ident())))
    assert done.exception(PATIENCE) is None
    assert [number for number, _ in seen] == list(range(5))
    assert {ident for _, ident in seen} - {threading.get_ident()} == {seen[0][1]}


@pytest.mark.parametrize("error", [ValueError("bad"), SystemExit(3)], ids=repr)
def test_an_error_is_raised_to_the_caller_and_does_not_end_the_thread(worker, error):
    def fail() -> None:
        raise error

    assert worker.submit(fail).exception(PATIENCE) is error
    assert worker.submit(lambda: None).exception(PATIENCE) is None


def test_work_that_never_returns_is_left_alone():
    worker, release = Worker("stuck"), threading.Event()
    worker.submit(release.wait)
    worker.stop(0.05)
    assert worker._thread.is_alive()
    assert worker._thread.daemon
    release.set()
    eventually(lambda: not worker._thread.is_alive())


@pytest.mark.django_db(transaction=True)
def test_the_worker_closes_the_database_connections_of_its_thread_at_the_end():
    worker = Worker("database")
    opened: list[object] = []

    def work() -> None:
        connections["default"].ensure_connection()
        opened.append(connections["default"])

    assert worker.submit(work).exception(PATIENCE) is None
    assert opened[0].connection is not None
    worker.stop(PATIENCE)
    assert opened[0].connection is None
