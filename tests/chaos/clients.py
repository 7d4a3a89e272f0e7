"""The clients of auth's API in a chaos run: they post, follow the stream, and resume it."""

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from random import Random
from typing import Any
from uuid import UUID

import aiohttp

from tests.chaos.owners import Owner
from tests.chaos.page_client import PageClient
from tests.chaos.people import Kind, Person
from tests.chaos.story import LOST, Story, pause_after
from tests.contract.documents import check_event, check_response

# A stream that is silent for longer than its heartbeat is lost.
SILENCE = 20.0
# Percentage of posts whose client disconnects before the answer arrives.
LOST_ANSWERS = 4
# Percentage of streams that the client itself drops in the middle.
DROPPED_STREAMS = 4


class Crowd:
    """Run a client for each person in a separate thread. The starts are spread evenly over `seconds`."""

    def __init__(self, base_url: str, people: Sequence[Person], *, seconds: float, seed: int) -> None:
        self.is_done = threading.Event()
        self._is_open = threading.Event()
        self._error: BaseException | None = None
        self._base_url = base_url
        self._people = people
        self._seconds = seconds
        self._random = Random(f"clients {seed}")
        self._stories: list[Story] = []
        self._complete = {person.signup_id: asyncio.Event() for person in people}
        self._thread = threading.Thread(target=self._work, name="clients", daemon=True)

    @property
    def stories(self) -> dict[UUID, Story]:
        """By sign-up. The front chooses the IDs of sign-ups from pages."""
        return {story.person.signup_id: story for story in self._stories}

    def start(self) -> None:
        now = time.monotonic()
        self._stories = [Story(person, run_began=now) for person in self._people]
        self._thread.start()
        self._is_open.wait()

    def stop(self) -> None:
        """End all clients, including those that still wait. Raises the error that ended the thread."""
        if not self.is_done.is_set():
            with suppress(RuntimeError):  # the loop has ended just now
                self._loop.call_soon_threadsafe(self._everybody.cancel)
        self._thread.join()
        if self._error:
            raise self._error

    def _work(self) -> None:
        try:
            asyncio.run(self._run())
        except BaseException as error:
            self._error = error
        finally:
            self.is_done.set()
            self._is_open.set()

    async def _run(self) -> None:
        # No time limit for connecting: a frozen server accepts connections, and on a busy machine this loop may itself
        # be late by seconds. With a limit every attempt would fail, and the retries would delay the loop further.
        timeout = aiohttp.ClientTimeout(total=None, sock_read=SILENCE)
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(self._base_url, connector=connector, timeout=timeout) as self._http:
            self._everybody = asyncio.gather(*(self._come(*each) for each in enumerate(self._stories)))
            self._loop = asyncio.get_running_loop()
            self._is_open.set()
            with suppress(asyncio.CancelledError):
                await self._everybody

    async def _come(self, index: int, story: Story) -> None:
        """One person. A rival starts together with its original, a duplicate when its original is complete."""
        person = story.person
        if person.kind is Kind.RIVAL and person.original:
            index = self._people.index(person.original)
        await asyncio.sleep(self._seconds * index / len(self._people))
        if person.kind in (Kind.SAME_USER_ID, Kind.SAME_EMAIL) and person.original:
            await self._complete[person.original.signup_id].wait()
        client = PageClient if person.kind is Kind.PAGE else ApiClient
        story.began = time.monotonic()
        await client(story, self._http, self._random).sign_up()
        if person.kind in (Kind.CHANGES, Kind.CLOSES):
            await Owner(story, self._http, self._random).act()
        story.ended = time.monotonic()
        if person.signup_id in self._complete:
            self._complete[person.signup_id].set()


class ApiClient:
    """A client of `POST /user`. The same key with every post; `Last-Event-ID` with every stream after the first."""

    def __init__(self, story: Story, http: aiohttp.ClientSession, random: Random) -> None:
        self._story = story
        self._http = http
        self._random = random
        self._ticket = ""

    async def sign_up(self) -> None:
        """Return when the stream has reached its end, however often it is lost."""
        failures = 0
        while True:
            seen = self._story.version
            try:
                if await (self._resume() if self._ticket else self._post()):
                    return
            except LOST as error:
                self._story.note(f"lost: {error!r}")
            failures = 0 if self._story.version > seen else failures + 1
            await asyncio.sleep(pause_after(failures, self._random))

    async def _post(self) -> bool:
        story = self._story
        story.posts += 1
        headers = {"Accept": "text/event-stream", "Idempotency-Key": str(story.person.signup_id)}
        posting = self._http.post("/user", json=story.person.form, headers=headers)
        if self._random.randrange(100) < LOST_ANSWERS:
            story.note("posts and leaves before the answer")
            with suppress(TimeoutError):
                async with asyncio.timeout(self._random.uniform(0.001, 0.05)), posting:
                    pass
            return False
        async with posting as answer:
            story.note(f"POST {answer.status}")
            if answer.status == 200:
                self._ticket = answer.headers["Signup-Ticket"]
                story.is_accepted = True
                return await self._follow(answer)
            await self._check(answer, 429, 502, 503)
        return False

    async def _resume(self) -> bool:
        story = self._story
        story.resumes += 1
        headers = {"Signup-Ticket": self._ticket, "Last-Event-ID": str(story.version)}
        async with self._http.get(f"/user/signups/{story.person.signup_id}/events", headers=headers) as answer:
            story.note(f"GET events from {story.version}: {answer.status}")
            if answer.status == 200:
                return await self._follow(answer)
            if answer.status == 204 and story.is_complete:
                return True
            await self._check(answer, 502, 503)
        return False

    async def _follow(self, answer: aiohttp.ClientResponse) -> bool:
        """Read the stream. Return whether it reached its end."""
        drops = self._random.randrange(100) < DROPPED_STREAMS
        async for kind, data in _events(answer):
            if kind != "status":
                self._story.note(kind)
                continue
            self._story.see(data)
            if data["complete"]:
                return True
            if drops and data["version"] >= 2:
                self._story.note("drops the stream")
                return False
        return False

    async def _check(self, answer: aiohttp.ClientResponse, *expected: int) -> None:
        body = await answer.read()
        if answer.status in expected:
            check_response(answer.method, answer.url.path, answer.status, answer.content_type, body)
        else:
            self._story.note_unexpected(f"{answer.method} was answered {answer.status} {body[:300]!r}")


async def _events(answer: aiohttp.ClientResponse) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """The (kind, data) of each event as it comes."""
    fields: dict[str, str] = {}
    async for line in answer.content:
        text = line.decode().rstrip("\n")
        if text:
            name, _, value = text.partition(": ")
            if name and name != "retry":
                fields[name] = value
        elif "data" in fields:
            check_event(fields)
            yield fields["event"], json.loads(fields["data"])
            fields = {}
