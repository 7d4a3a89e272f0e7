"""Clients that follow streams as browsers do: after a lost connection they resume with the last id, after the retry
pause that auth sent."""

import asyncio
import json
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Self

import aiohttp

from tests.client import Answer, ServerEvent
from tests.contract.documents import check_event
from tests.stack import Stack
from tests.waiting import eventually


class Listener:
    """One client of one sign-up."""

    def __init__(self, stack: Stack, signup: Answer) -> None:
        self.url = f"{stack.base_url}{signup.headers['Location']}/events"
        self.ticket = signup.headers["Signup-Ticket"]
        self.events: list[ServerEvent] = []
        self.losses = 0
        self.is_delayed = False
        self.is_open = False
        self._pause = 2.0

    @property
    def ids(self) -> list[int]:
        return [event.id for event in self.events if event.id is not None]

    @property
    def is_complete(self) -> bool:
        return bool(self.events) and self.events[-1].data["complete"]

    @property
    def statuses(self) -> dict[str, str]:
        return self.events[-1].statuses

    async def follow(self, client: aiohttp.ClientSession) -> None:
        while not self.is_complete:
            with suppress(aiohttp.ClientError, TimeoutError):
                await self._read(client)
            self.is_open = False
            if not self.is_complete:
                # Cut off, or ended by a server that stops.
                self.losses += 1
                await asyncio.sleep(self._pause)

    async def _read(self, client: aiohttp.ClientSession) -> None:
        headers = {"Signup-Ticket": self.ticket, "Last-Event-ID": str(max(self.ids, default=0))}
        async with client.get(self.url, headers=headers) as response:
            response.raise_for_status()
            assert response.status == 200, "auth says that we have seen the end, and we have not"
            self.is_open = True
            fields: dict[str, str] = {}
            async for line in response.content:
                name, _, value = line.decode().rstrip("\n").partition(": ")
                if name:
                    fields[name] = value
                else:
                    self._take(fields)
                    fields = {}

    def _take(self, fields: dict[str, str]) -> None:
        if "event" in fields:
            check_event(fields)
        if "retry" in fields:
            self._pause = int(fields["retry"]) / 1000
        if fields.get("event") == "delayed":
            self.is_delayed = True
        elif fields.get("event") == "status":
            self.events.append(ServerEvent("status", int(fields["id"]), json.loads(fields["data"])))

    def assert_saw_all(self, statuses: dict[str, str]) -> None:
        """Check that the final state is this one, that ids only rose, and that each light was named exactly once as
        changed.
        """
        assert self.statuses == statuses
        assert self.ids == sorted(set(self.ids))
        decided = [
            service
            for event in self.events
            for service in event.data["changed"]
            if event.statuses[service] != "PENDING"
        ]
        assert sorted(decided) == sorted(statuses)


class Listeners:
    """Any number of listeners, on an event loop in a separate thread."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._tasks: list[Any] = []
        self.all: list[Listener] = []

    def __enter__(self) -> Self:
        self._thread.start()
        self._client = self._run(self._new_client())
        return self

    def __exit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        self._run(self._client.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def follow(self, signups: Sequence[Answer]) -> None:
        """Add a client for each of these sign-ups. Return when all have their stream."""
        new = [Listener(self._stack, signup) for signup in signups]
        self.all += new
        self._tasks += [asyncio.run_coroutine_threadsafe(each.follow(self._client), self._loop) for each in new]
        eventually(lambda: all(each.is_open for each in new), what="every client has its stream")

    @property
    def are_open(self) -> bool:
        return all(each.is_open for each in self.all)

    @property
    def losses(self) -> int:
        return sum(each.losses for each in self.all)

    def wait_for_the_end(self, timeout: float = 40) -> None:
        eventually(lambda: all(each.is_complete for each in self.all), timeout, what="every client has seen the end")
        for task in self._tasks:
            task.result(5)

    async def _new_client(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=None))

    def _run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)
