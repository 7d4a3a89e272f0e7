import asyncio
import threading

import pytest

from authsvc.passwords import HashPool, HashQueueFullError


async def test_it_hashes_off_the_event_loop():
    assert await HashPool().run(threading.get_ident) != threading.get_ident()


async def test_a_full_queue_refuses_at_once_and_takes_again_when_it_has_room(settings):
    settings.HASH_QUEUE_LIMIT = 3
    pool, gate = HashPool(), threading.Event()
    waiting = [asyncio.create_task(pool.run(lambda: gate.wait(10))) for _ in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(HashQueueFullError):
        await pool.run(lambda: True)
    gate.set()
    assert await asyncio.gather(*waiting) == [True] * 3
    assert await pool.run(lambda: "hashed") == "hashed"
