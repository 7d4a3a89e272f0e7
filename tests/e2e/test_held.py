"""Many sign-ups held pending by one web process: none of them holds a thread."""

import asyncio
import time
from pathlib import Path
from statistics import median

import aiohttp
import pytest

from tests.client import filled_form
from tests.conftest import Person, new_person
from tests.stack import Stack

pytestmark = [pytest.mark.needs("application", "caddy")]

HELD = 500
AT_ONCE = 20


def threads_of(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def sockets_of(pid: int) -> int:
    return sum(1 for each in Path(f"/proc/{pid}/fd").iterdir() if str(each.readlink()).startswith("socket:"))


async def post_form(stack: Stack, person: Person) -> None:
    """One browser: the form with its cookies, and the post of its script."""
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as browser:
        async with browser.get(f"{stack.base_url}/signup/") as page:
            fields = filled_form(await page.text(), person)
        async with browser.post(
            f"{stack.base_url}/signup/", data=fields, headers={"Accept": "application/json"}
        ) as answer:
            assert answer.status == 200, await answer.text()
            assert (await answer.json())["state"]["services"]["customer"] == {"status": "PENDING"}


async def post_forms(stack: Stack, people: list[Person]) -> None:
    gate = asyncio.Semaphore(AT_ONCE)

    async def post(person: Person) -> None:
        async with gate:
            await post_form(stack, person)

    await asyncio.gather(*[post(person) for person in people])


async def times_of_login(stack: Stack) -> list[float]:
    """Milliseconds of each of some GETs of the login page, one after another."""
    times = []
    async with aiohttp.ClientSession() as client:
        for _ in range(20):
            begun = time.perf_counter()
            async with client.get(f"{stack.base_url}/login/") as page:
                assert page.status == 200
                await page.read()
            times.append((time.perf_counter() - begun) * 1000)
    return times


def test_500_pending_signups_hold_no_thread_and_the_pages_stay_quick(stack: Stack, capsys: pytest.CaptureFixture[str]):
    web = stack.roles["web"]
    stack.roles["customer"].stop()
    try:
        # As many as there will be at once, so that every pool has all of its threads.
        asyncio.run(post_forms(stack, [new_person() for _ in range(2 * AT_ONCE)]))
        threads, sockets = threads_of(web.pid), sockets_of(web.pid)
        asyncio.run(post_forms(stack, [new_person() for _ in range(HELD)]))
        held = sockets_of(web.pid) - sockets
        times = asyncio.run(times_of_login(stack))
        with capsys.disabled():
            print(
                f"\n{held} sign-ups held pending by one web process: {threads} threads before, "
                f"{threads_of(web.pid)} after; GET /login/ p50 {median(times):.1f} ms, most {max(times):.1f} ms"
            )
        assert held >= HELD * 0.99, "each has its stream open"
        assert threads_of(web.pid) <= threads + 5
        assert median(times) < 100
    finally:
        stack.roles["customer"].start()
