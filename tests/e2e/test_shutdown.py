"""Every role ends within 5 s of SIGTERM with any number of open streams, and their clients reconnect elsewhere."""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import aiohttp
import pytest

from tests.chaos.listeners import Listeners
from tests.client import filled_form
from tests.conftest import Person, new_person
from tests.e2e.test_api import ALL_GREEN, post, row, state, statuses
from tests.e2e.test_page import stopped
from tests.stack import Stack
from tests.waiting import eventually

pytestmark = pytest.mark.needs("application", "caddy")

STREAMS = 200
BROWSERS = 50
ENDS_WITHIN = 5.0


class Browsers:
    """Pages that have signed up and hold their sockets at the web process, which relays for each of them."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self.showing: set[str] = set()
        self.closed = 0

    async def run(self, people: list[Person]) -> None:
        async with asyncio.TaskGroup() as group:
            for person in people:
                group.create_task(self._sign_up(person))

    async def _sign_up(self, person: Person) -> None:
        jar = aiohttp.CookieJar(unsafe=True)
        async with aiohttp.ClientSession(self._stack.base_url, cookie_jar=jar) as client:
            async with client.get("/signup/") as page:
                fields = filled_form(await page.text(), person)
            async with client.post("/signup/", data=fields, headers={"Accept": "application/json"}) as answer:
                path = (await answer.json())["socketPath"]
            async with client.ws_connect(path, headers={"Origin": self._stack.base_url}) as socket:
                async for _state in socket:
                    self.showing.add(person.user_id)
            self.closed += 1


@contextmanager
def browsers(stack: Stack, people: list[Person]) -> Iterator[Browsers]:
    """The pages of these people, until the web process closes their sockets."""
    pages = Browsers(stack)
    thread = threading.Thread(target=lambda: asyncio.run(pages.run(people)))
    thread.start()
    try:
        eventually(lambda: len(pages.showing) == len(people), what="every page shows its lights")
        yield pages
    finally:
        stack.roles["web"].stop()
        thread.join(20)
        assert not thread.is_alive()
        stack.roles["web"].start()


def test_every_role_ends_in_time_and_no_client_misses_a_change(stack: Stack):
    people = [new_person() for _ in range(20)]
    pages = [new_person() for _ in range(BROWSERS)]
    ends: dict[str, tuple[int, float]] = {}
    written = {name: len(log) for name, log in stack.logs().items()}

    def end(name: str) -> None:
        asked = time.monotonic()
        ends[name] = stack.roles[name].stop(), time.monotonic() - asked

    with stopped(stack, "chat"), Listeners(stack) as listeners:
        signups = [post(stack, person.form) for person in people]
        for signup in signups:
            eventually(lambda signup=signup: statuses(state(stack, signup))["customer"] == "SUCCESS")
        listeners.follow(signups * (STREAMS // len(people)))
        with browsers(stack, pages) as shown:
            for name in [name for name in stack.roles if name not in ("chat", "auth-results")]:
                losses = listeners.losses
                end(name)
                if name in ("auth-1", "auth-2"):
                    eventually(lambda losses=losses: listeners.losses > losses, what=f"{name} held streams")
                    eventually(lambda: listeners.are_open, what="the streams continue elsewhere")
                stack.roles[name].start()
        assert shown.closed == len(pages)
        assert listeners.losses >= STREAMS
        # No process consumes chat's answers, so the streams are still open when it ends.
        end("auth-results")
        stack.roles["chat"].start()
        end("chat")
        assert len(listeners.all) == STREAMS
        assert listeners.are_open
        stack.roles["chat"].start()
        stack.roles["auth-results"].start()
        listeners.wait_for_the_end()
        for each in listeners.all:
            each.assert_saw_all(ALL_GREEN)
    assert ends.keys() == stack.roles.keys()
    assert {name: code for name, (code, _) in ends.items() if code} == {}
    assert {name: seconds for name, (_, seconds) in ends.items() if seconds > ENDS_WITHIN} == {}
    everybody = {row(person) for person in people + pages}
    eventually(lambda: all(everybody <= stack.rows(service) for service in ALL_GREEN))
    assert [name for name, log in stack.logs().items() if "Traceback" in log[written[name] :]] == []
