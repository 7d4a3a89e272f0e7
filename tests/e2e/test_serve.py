"""The server of the web processes: its requests at a stop. The application doesn't depend on it, and also runs on
daphne."""

import asyncio
import re
import sqlite3
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from urllib.request import urlopen

import aiohttp
import psycopg
import pytest

from tests.client import SERVICES
from tests.conftest import Person, new_person
from tests.contract.documents import states_of
from tests.servers import free_port
from tests.servers.process import LOOPBACK, dies_with_parent
from tests.stack import RoleProcess, Stack
from tests.waiting import eventually

pytestmark = pytest.mark.needs("application")

# A hash that takes at least 0.2 s of a core.
SLOW_HASH = {"ARGON2_MEMORY_KIB": str(19 * 1024), "ARGON2_TIME_COST": "20"}
WAITING = 60
ENDS_WITHIN = 5.0


@contextmanager
def another_web(stack: Stack, *command: str, **env: str) -> Iterator[RoleProcess]:
    """One more web process of this stack, by this command of Python if one is given."""
    port = free_port()
    role = stack.add_web(f"another-{port}", port)
    role.env |= env
    if command:
        role.command = [*dies_with_parent(), sys.executable, *(word.format(port=role.port) for word in command)]
    try:
        role.start()
        yield role
    finally:
        stack.roles.pop(role.name).kill()


def hashes_waiting(role: RoleProcess) -> float:
    with urlopen(f"http://{LOOPBACK}:{role.port}/metrics", timeout=10) as page:
        found = re.search(r"^signup_hashes_waiting (\S+)$", page.read().decode(), re.MULTILINE)
    return float(found[1]) if found else 0


class Posts:
    """People who all sign up at once at one process, and the answer to each; None if the connection was cut."""

    def __init__(self, role: RoleProcess, people: Sequence[Person]) -> None:
        self._url = f"http://{LOOPBACK}:{role.port}/user"
        self._people = people
        self.answers: list[tuple[int, str, bool] | None] = []
        self._thread = threading.Thread(target=lambda: asyncio.run(self._post_all()))

    def __enter__(self) -> "Posts":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(30)
        assert not self._thread.is_alive()

    async def _post_all(self) -> None:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as client:
            await asyncio.gather(*(self._post(client, person) for person in self._people))

    async def _post(self, client: aiohttp.ClientSession, person: Person) -> None:
        try:
            async with client.post(self._url, json=person.form) as answer:
                self.answers.append((answer.status, answer.content_type, "Retry-After" in answer.headers))
        except aiohttp.ClientError:
            self.answers.append(None)


def end(role: RoleProcess) -> tuple[int, float]:
    """The exit code, and the seconds that it took."""
    asked = time.monotonic()
    return role.stop(timeout=20), time.monotonic() - asked


def test_a_stopping_process_answers_503_to_posts_that_wait_for_the_hash_and_cuts_nobody_off(stack: Stack):
    people = [new_person() for _ in range(WAITING)]
    with another_web(stack, **SLOW_HASH) as web:
        with Posts(web, people) as posts:
            eventually(
                lambda: posts.answers and hashes_waiting(web) > WAITING / 4, what="some are saved, and others wait"
            )
            code, seconds = end(web)
        taken, refused = (202, "application/json", False), (503, "application/problem+json", True)
        assert set(posts.answers) == {taken, refused}
        assert len(posts.answers) == WAITING
        assert code == 0
        assert seconds < ENDS_WITHIN
        assert "Traceback" not in web.log()
    kept = {row.user_id for row in stack.rows("auth")} & {person.user_id for person in people}
    # All accepted sign-ups are saved; of the refused ones, only those whose commit was in progress when the answer was
    # due.
    assert posts.answers.count(taken) <= len(kept) <= WAITING * 3 / 4


@contextmanager
def users_locked(stack: Stack) -> Iterator[None]:
    """Block all statements in auth's database that save a user."""
    with ExitStack() as held:
        if url := stack.env.get("AUTH_DATABASE_URL"):
            held.enter_context(psycopg.connect(url)).execute("LOCK TABLE authsvc_user")
        else:
            file = Path(stack.env["DATA_DIR"]) / "auth.sqlite3"
            held.enter_context(closing(sqlite3.connect(file, timeout=20))).execute("BEGIN IMMEDIATE")
        yield


def test_a_hanging_database_does_not_keep_a_process_from_stopping(stack: Stack):
    with another_web(stack, **SLOW_HASH) as web, users_locked(stack), Posts(web, [new_person()]) as posts:
        # An ordinary hash may begin and end between two checks.
        eventually(lambda: hashes_waiting(web), what="the sign-up has begun")
        eventually(lambda: not hashes_waiting(web), what="the sign-up waits for the database")
        code, seconds = end(web)
    assert code == 1
    assert seconds < ENDS_WITHIN + 1
    # 503 if the wait for the commit ended before the process did.
    assert [answer and answer[0] for answer in posts.answers] in ([None], [500], [503])


async def watch(role: RoleProcess, person: Person) -> tuple[list[str], int | None]:
    """The last lights of a stream of this process, and the close code of a socket with a wrong ticket."""
    base = f"http://{LOOPBACK}:{role.port}"
    async with aiohttp.ClientSession(base, timeout=aiohttp.ClientTimeout(total=30)) as client:
        async with client.get("/signup/") as page:
            assert page.status == 200
        async with client.post("/user", json=person.form, headers={"Accept": "text/event-stream"}) as stream:
            last = states_of(await stream.text())[-1]
        async with client.ws_connect("/ws/signup/nonsense/", headers={"Origin": base}) as socket:
            await socket.receive()
            closed = socket.close_code
    return [light["status"] for light in last["services"].values()], closed


def test_daphne_serves_the_same_application(stack: Stack, person: Person):
    command = ("-m", "daphne", "-v", "0", "-b", LOOPBACK, "-p", "{port}", "signup_sync.asgi:application")
    with another_web(stack, *command) as daphne:
        assert asyncio.run(watch(daphne, person)) == (["SUCCESS"] * len(SERVICES), 4403)
        code, seconds = end(daphne)
        assert code == 0
        assert seconds < ENDS_WITHIN
