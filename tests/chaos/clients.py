"""The people's browsers: they post, watch the stream, and come back when they lose it, as long as it takes."""

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any

import aiohttp

from tests.chaos.people import Kind, Person

# Seconds until a lost connection is tried again, at first and at most; half to all of it.
FIRST_PAUSE = 0.25
LONGEST_PAUSE = 4.0
# A stream that says nothing for longer than its heartbeat is lost.
SILENCE = 20.0
# Of a hundred posts, those whose answer the client itself loses: it has left before it came.
LOST_ANSWERS = 4
# Of a hundred streams, those that the client itself drops in the middle.
DROPPED_STREAMS = 4
AT_ONCE = 600


@dataclass
class Story:
    """What one client did and saw. `log` has lines of (seconds since the run began, what)."""

    person: Person
    log: list[tuple[float, str]] = field(default_factory=list)
    states: list[dict[str, Any]] = field(default_factory=list)
    ticket: str = ""
    posts: int = 0
    resumes: int = 0
    began: float = 0.0
    ended: float | None = None
    unexpected: list[str] = field(default_factory=list)

    @property
    def is_accepted(self) -> bool:
        """Whether auth said that it has taken the sign-up."""
        return bool(self.ticket)

    @property
    def version(self) -> int:
        return self.states[-1]["version"] if self.states else 0


class Crowd:
    """Runs a client for each person, in a thread of its own, begun evenly over `seconds`."""

    def __init__(self, base_url: str, people: Sequence[Person], *, seconds: float, seed: int) -> None:
        self.stories = {person.signup_id: Story(person) for person in people}
        self.is_done = threading.Event()
        self.error: BaseException | None = None
        self._base_url = base_url
        self._people = people
        self._seconds = seconds
        self._random = Random(f"clients {seed}")
        self._begun = time.monotonic()
        self._stop = threading.Event()
        self._complete = {person.signup_id: asyncio.Event() for person in people}
        self._thread = threading.Thread(target=self._work, name="clients", daemon=True)

    def start(self) -> None:
        self._begun = time.monotonic()
        self._thread.start()

    def stop(self) -> None:
        """Ends also those that still wait. Raises what went wrong in here."""
        self._stop.set()
        self._thread.join()
        if self.error:
            raise self.error

    @property
    def completed(self) -> int:
        return sum(story.ended is not None for story in self.stories.values())

    def _work(self) -> None:
        try:
            asyncio.run(self._run())
        except BaseException as error:  # noqa: BLE001 - stop() raises it where it is seen
            self.error = error
        finally:
            self.is_done.set()

    async def _run(self) -> None:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=SILENCE)
        async with aiohttp.ClientSession(
            self._base_url, connector=aiohttp.TCPConnector(limit=0), timeout=timeout
        ) as self._http:
            self._room = asyncio.Semaphore(AT_ONCE)
            everybody = asyncio.gather(*(self._come(index, person) for index, person in enumerate(self._people)))
            asking = asyncio.create_task(self._wait_for_stop())
            await asyncio.wait([everybody, asking], return_when=asyncio.FIRST_COMPLETED)
            asking.cancel()
            if not everybody.done():
                everybody.cancel()
            with suppress(asyncio.CancelledError):
                await everybody

    async def _wait_for_stop(self) -> None:
        while not self._stop.is_set():
            await asyncio.sleep(0.1)

    async def _come(self, index: int, person: Person) -> None:
        """One person: at their time, a duplicate when the original is complete."""
        position = index
        if person.kind is Kind.RIVAL and person.original:
            position = self._people.index(person.original)
        await asyncio.sleep(self._seconds * position / len(self._people))
        if person.kind in (Kind.SAME_USER_ID, Kind.SAME_EMAIL) and person.original:
            await self._complete[person.original.signup_id].wait()
        story = self.stories[person.signup_id]
        async with self._room:
            story.began = time.monotonic()
            await self._sign_up(story)
            story.ended = time.monotonic()
        self._complete[person.signup_id].set()

    async def _sign_up(self, story: Story) -> None:
        failures = 0
        while True:
            seen = story.version
            try:
                if await (self._resume(story) if story.ticket else self._post(story)):
                    return
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                self._note(story, f"lost: {error!r}")
            failures = 0 if story.version > seen else failures + 1
            limit = min(FIRST_PAUSE * 2 ** min(failures, 8), LONGEST_PAUSE)
            await asyncio.sleep(limit * self._random.uniform(0.5, 1))

    async def _post(self, story: Story) -> bool:
        story.posts += 1
        headers = {"Accept": "text/event-stream", "Idempotency-Key": str(story.person.signup_id)}
        posting = self._http.post("/user", json=story.person.form, headers=headers)
        if self._random.randrange(100) < LOST_ANSWERS:
            self._note(story, "posts and leaves before the answer")
            with suppress(TimeoutError):
                async with asyncio.timeout(self._random.uniform(0.001, 0.05)), posting:
                    pass
            return False
        async with posting as answer:
            self._note(story, f"POST {answer.status}")
            if answer.status == 200:
                story.ticket = answer.headers["Signup-Ticket"]
                return await self._watch(story, answer)
            await self._is_expected(story, answer, 429, 502, 503)
        return False

    async def _resume(self, story: Story) -> bool:
        story.resumes += 1
        headers = {"Signup-Ticket": story.ticket, "Last-Event-ID": str(story.version)}
        async with self._http.get(f"/user/signups/{story.person.signup_id}/events", headers=headers) as answer:
            self._note(story, f"GET events from {story.version}: {answer.status}")
            if answer.status == 200:
                return await self._watch(story, answer)
            if answer.status == 204 and story.states and story.states[-1]["complete"]:
                return True
            await self._is_expected(story, answer, 502, 503)
        return False

    async def _watch(self, story: Story, answer: aiohttp.ClientResponse) -> bool:
        """Reads the stream; whether it came to its end."""
        drops = self._random.randrange(100) < DROPPED_STREAMS
        async for kind, data in _events(answer):
            self._note(story, f"{kind} {_short(data)}")
            if kind != "status":
                continue
            story.states.append(dict(data))
            if data["complete"]:
                return True
            if drops and data["version"] >= 2:
                self._note(story, "drops the stream")
                return False
        return False

    async def _is_expected(self, story: Story, answer: aiohttp.ClientResponse, *expected: int) -> None:
        if answer.status not in expected:
            story.unexpected.append(f"{answer.method} was answered {answer.status} {(await answer.text())[:300]}")
            self._note(story, story.unexpected[-1])

    def _note(self, story: Story, what: str) -> None:
        story.log.append((time.monotonic() - self._begun, what))


async def _events(answer: aiohttp.ClientResponse) -> AsyncIterator[tuple[str, Mapping[str, Any]]]:
    """The (kind, data) of each event as it comes."""
    fields: dict[str, str] = {}
    async for line in answer.content:
        text = line.decode().rstrip("\n")
        if text:
            name, _, value = text.partition(": ")
            fields[name] = value
        elif "data" in fields:
            yield fields.get("event", ""), json.loads(fields["data"])
            fields = {}


def _short(data: Mapping[str, Any]) -> str:
    lights = ", ".join(f"{name} {light['status']}" for name, light in data.get("services", {}).items())
    return f"{data.get('version', '')}: {lights}" if lights else ""
