"""API clients that retry: each posts with one Idempotency-Key until a stream has reported the end of its sign-up."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import aiohttp

from tests.conftest import Person, new_person
from tests.contract.documents import check_response, states_of

# Errors and answers after which a client may send the same request again.
LOST = (aiohttp.ClientError, TimeoutError, ConnectionError)
RETRIED = (429, 502, 503)
PAUSE = 0.2
# Timeout in seconds for one sign-up with all its attempts. The relay publishes a lost event again after 5 to 20 s.
COMPLETE_WITHIN = 120.0


@dataclass
class SigningUp:
    """One person's sign-up. `waited` is the longest time in seconds from a post, with its repetitions, until one was
    accepted."""

    person: Person
    key: str
    posts: int = 0
    waited: float = 0.0
    ticket: str = ""
    state: dict[str, Any] = field(default_factory=dict)

    @property
    def lights(self) -> dict[str, str]:
        return {service: light["status"] for service, light in self.state.get("services", {}).items()}


async def sign_up_all(
    address: str, people: Iterable[Person], *, at_once: int, after_each: Callable[[SigningUp], None] = lambda _: None
) -> list[SigningUp]:
    """Sign these people up, `at_once` at a time, through the published port."""
    waiting = iter(people)
    done: list[SigningUp] = []

    async def work(http: aiohttp.ClientSession) -> None:
        for person in waiting:
            done.append(signing_up := await sign_up(http, person))
            after_each(signing_up)

    timeout = aiohttp.ClientTimeout(total=None, sock_read=30)
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with (
        aiohttp.ClientSession(f"http://{address}", timeout=timeout, connector=connector) as http,
        asyncio.TaskGroup() as group,
    ):
        for _ in range(at_once):
            group.create_task(work(http))
    return done


async def sign_up(http: aiohttp.ClientSession, person: Person) -> SigningUp:
    """Post until a stream ends. Raises TimeoutError, and AssertionError on an answer that a client must not retry."""
    signing_up = SigningUp(person, str(uuid4()))
    headers = {"Accept": "text/event-stream", "Idempotency-Key": signing_up.key} | as_tls_proxy()
    waiting_since: float | None = None
    async with asyncio.timeout(COMPLETE_WITHIN):
        while not signing_up.state.get("complete"):
            signing_up.posts += 1
            waiting_since = waiting_since or time.monotonic()
            try:
                async with http.post("/user", json=person.form, headers=headers) as answer:
                    if answer.status == 200:
                        signing_up.waited = max(signing_up.waited, time.monotonic() - waiting_since)
                        waiting_since = None
                        signing_up.ticket = answer.headers["Signup-Ticket"]
                        async for state in _states(answer):
                            signing_up.state = state
                    else:
                        body = await answer.read()
                        assert answer.status in RETRIED, f"{answer.status} {body!r}"
                        check_response("POST", "/user", answer.status, answer.content_type, body)
            except LOST:
                pass
            if not signing_up.state.get("complete"):
                await asyncio.sleep(PAUSE)
    return signing_up


def as_tls_proxy() -> dict[str, str]:
    """Return the headers of a TLS proxy on this host. Each client has another address, as rate limits count by it."""
    address = f"198.18.{secrets.randbelow(256)}.{secrets.randbelow(256)}"
    return {"X-Forwarded-Proto": "https", "X-Forwarded-For": address}


async def _states(answer: aiohttp.ClientResponse) -> AsyncIterator[dict[str, Any]]:
    while (block := await answer.content.readuntil(b"\n\n")).endswith(b"\n\n"):
        for state in states_of(block.decode()):
            yield state


@asynccontextmanager
async def keep_signing_up(address: str, *, at_once: int) -> AsyncIterator[list[SigningUp]]:
    """Sign people up for as long as the block lasts. After it, the list has all of them, with complete sign-ups."""
    done: list[SigningUp] = []
    is_over = asyncio.Event()

    def people() -> Iterator[Person]:
        while not is_over.is_set():
            yield new_person()

    load = asyncio.create_task(sign_up_all(address, people(), at_once=at_once, after_each=done.append))
    try:
        yield done
    finally:
        is_over.set()
        await load


async def state_of(address: str, signing_up: SigningUp) -> dict[str, Any]:
    """Return the state of a sign-up, as its ticket's owner sees it."""
    headers = {"Signup-Ticket": signing_up.ticket} | as_tls_proxy()
    path = f"/user/signups/{signing_up.state['signupId']}"
    async with (
        aiohttp.ClientSession(f"http://{address}", raise_for_status=True) as http,
        http.get(path, headers=headers) as answer,
    ):
        check_response("GET", path, answer.status, answer.content_type, await answer.read())
        state: dict[str, Any] = await answer.json()
        return state
