import asyncio
import threading

import pytest

from runtime.processes.bounded_pool import BoundedPool, QueueFullError


async def test_calls_run_outside_the_event_loop():
    assert await BoundedPool(1, limit=1, name="test").run(threading.get_ident) != threading.get_ident()


async def test_a_full_queue_refuses_at_once_and_accepts_calls_again_when_it_has_room():
    pool, gate = BoundedPool(1, limit=3, name="test"), threading.Event()
    waiting = [asyncio.create_task(pool.run(lambda: gate.wait(60))) for _ in range(3)]
    await asyncio.sleep(0)
    assert pool.is_full
    assert pool.waiting == 2
    with pytest.raises(QueueFullError):
        await pool.run(lambda: True)
    gate.set()
    assert await asyncio.gather(*waiting) == [True] * 3
    assert await pool.run(lambda: "done") == "done"
    assert pool.waiting == 0


async def test_a_closed_pool_refuses_waiting_and_new_calls_and_finishes_running_ones():
    pool, begun, gate = BoundedPool(1, limit=3, name="test"), threading.Event(), threading.Event()

    def work() -> bool:
        begun.set()
        return gate.wait(10)

    running, waiting = asyncio.create_task(pool.run(work)), asyncio.create_task(pool.run(work))
    assert await asyncio.to_thread(begun.wait, 10)
    pool.close()
    with pytest.raises(QueueFullError):
        await waiting
    assert pool.is_full
    with pytest.raises(QueueFullError):
        await pool.run(work)
    gate.set()
    assert await running


async def test_a_cancelled_call_does_not_count_as_a_full_queue():
    pool, gate = BoundedPool(1, limit=1, name="test"), threading.Event()
    leaving = asyncio.create_task(pool.run(lambda: gate.wait(10)))
    await asyncio.sleep(0)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    gate.set()
