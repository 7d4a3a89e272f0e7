"""Many sign-ups wait in one web process, for auth's verdict or for the other services: none of them holds a thread."""

import asyncio
import socket
import time
from pathlib import Path
from statistics import median

import aiohttp
import pytest

from tests.client import filled_form
from tests.conftest import Person, new_person
from tests.e2e.test_serve import another_web
from tests.servers.process import LOOPBACK
from tests.stack import RoleProcess, Stack
from tests.waiting import eventually_async

pytestmark = [pytest.mark.alone, pytest.mark.needs("application")]

HELD = 500
WAITING = 100
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
    """The milliseconds of each of several GETs of the login page, one after another."""
    times = []
    async with aiohttp.ClientSession() as client:
        for _ in range(20):
            begun = time.perf_counter()
            async with client.get(f"{stack.base_url}/login/") as page:
                assert page.status == 200
                await page.read()
            times.append((time.perf_counter() - begun) * 1000)
    return times


@pytest.mark.needs("caddy")
def test_500_pending_sign_ups_hold_no_thread_and_the_pages_stay_quick(stack: Stack, capsys: pytest.CaptureFixture[str]):
    web = stack.roles["web"]
    stack.roles["customer"].stop()
    try:
        # As many as will run at once, so that every pool has all of its threads.
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


async def hold_no_threads_while_forms_wait(web: RoleProcess, silent: socket.socket) -> int:
    """Post WAITING forms whose gateway accepts connections and never answers. Return the threads of the process once
    it has released those that the forms held."""
    url = f"http://{LOOPBACK}:{web.port}/signup/"

    async def post(person: Person) -> None:
        async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as browser:
            async with browser.get(url) as page:
                fields = filled_form(await page.text(), person)
            async with browser.post(url, data=fields, headers={"Accept": "application/json"}) as answer:
                await answer.read()

    async def all_wait() -> bool:
        return sockets_to(web.pid, silent.getsockname()[1]) >= WAITING

    async def few_threads() -> int | None:
        return threads if (threads := threads_of(web.pid)) <= before + WAITING / 10 else None

    before = threads_of(web.pid)
    posts = [asyncio.create_task(post(new_person())) for _ in range(WAITING)]
    try:
        await eventually_async(all_wait, what="every form's request has reached the gateway")
        waiting = await eventually_async(few_threads, what="the forms hold no threads")
        assert sockets_to(web.pid, silent.getsockname()[1]) >= WAITING
        return waiting
    finally:
        for each in posts:
            each.cancel()
        await asyncio.gather(*posts, return_exceptions=True)


def sockets_to(pid: int, port: int) -> int:
    """Established TCP connections of the process to this port."""
    lines = Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]
    return sum(1 for fields in map(str.split, lines) if int(fields[2].split(":")[1], 16) == port and fields[3] == "01")


def test_forms_that_wait_for_auth_hold_no_thread(stack: Stack, capsys: pytest.CaptureFixture[str]):
    with socket.create_server((LOOPBACK, 0), backlog=2 * WAITING) as silent:
        gateway = f"http://{LOOPBACK}:{silent.getsockname()[1]}"
        with another_web(stack, GATEWAY_URL=gateway, SIGNUP_DEADLINE="60") as web:
            before = threads_of(web.pid)
            waiting = asyncio.run(hold_no_threads_while_forms_wait(web, silent))
            with capsys.disabled():
                print(f"\n{WAITING} forms wait for auth: {before} threads before, {waiting} while they wait")
