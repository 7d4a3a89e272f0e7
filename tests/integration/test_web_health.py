"""The web process's health pages, requested as compose and `make run` request them."""

import asyncio
import json
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from channels.testing import HttpCommunicator
from django.db import connection, connections
from django.utils.connection import ConnectionProxy
from pytest_django.fixtures import Settings

from signup_sync.asgi import application, follower
from signup_sync.server import health
from tests.waiting import PATIENCE

# This is not a web process: it does not follow the live settings between the tests.
follower.close()

pytestmark = [pytest.mark.needs("redis"), pytest.mark.django_db(transaction=True)]


@pytest.fixture(autouse=True)
def registered_for_the_test_alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The first call registers the process, in whose Redis the tests of the instances look for nobody else."""
    monkeypatch.setattr(application, "_report", None)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    if application._report:
        application._report.__exit__()
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture(autouse=True)
def database_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The test's own thread, whose connection is closed before the test's database is dropped."""
    with ThreadPoolExecutor(1) as executor:
        monkeypatch.setattr(health, "_database_thread", executor)
        yield
        executor.submit(connections.close_all)


@pytest.fixture
def silent_server() -> Iterator[str]:
    """host:port of a server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield "{}:{}".format(*server.getsockname())


async def get(path: str) -> tuple[int, dict[str, object]]:
    """Return status and document of a request with a host that is not in ALLOWED_HOSTS."""
    request = HttpCommunicator(application, "GET", path, headers=[(b"host", b"10.0.0.7:8000")])
    response = await request.get_response(timeout=2 * PATIENCE)
    return response["status"], json.loads(response["body"])


async def test_live_needs_neither_redis_nor_a_database(settings: Settings) -> None:
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    response = await get("/health/live")
    assert response == (200, {"status": "ok"})


async def test_ready_when_database_and_redis_answer() -> None:
    response = await get("/health/ready")
    assert response == (200, {"status": "ok"})


async def test_an_outage_of_redis_is_named_and_leaves_the_instance_ready(settings: Settings) -> None:
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    response = await get("/health/ready")
    assert response == (200, {"status": "ok", "unavailable": ["redis"]})


async def test_a_redis_that_hangs_is_given_up(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, silent_server: str
) -> None:
    settings.REDIS_URL = f"redis://{silent_server}/0"
    monkeypatch.setattr(health, "ANSWERS_WITHIN", 0.2)
    begun_at = time.monotonic()
    response = await get("/health/ready")
    assert response == (200, {"status": "ok", "unavailable": ["redis"]})
    assert time.monotonic() - begun_at < PATIENCE


async def test_an_outage_of_the_database_is_named_and_answered_with_503(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lost = tmp_path / "no such folder" / "auth.sqlite3"
    config = {**connection.settings_dict, "ENGINE": "django.db.backends.sqlite3", "NAME": str(lost), "OPTIONS": {}}
    monkeypatch.setitem(connections.settings, "lost", config)
    monkeypatch.setattr(health, "connection", ConnectionProxy(connections, "lost"))
    response = await get("/health/ready")
    assert response == (503, {"status": "unavailable", "unavailable": ["database"]})


async def test_a_database_that_hangs_costs_one_thread_however_often_it_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = threading.Event()
    waited_in: list[threading.Thread] = []

    def wait() -> None:
        waited_in.append(threading.current_thread())
        answers.wait()

    monkeypatch.setattr(health, "ANSWERS_WITHIN", 0.2)
    monkeypatch.setattr(health, "_ask_database", wait)
    try:
        responses = await asyncio.gather(*(get("/health/ready") for _ in range(30)))
    finally:
        answers.set()
    assert all("database" in response[1]["unavailable"] for response in responses)
    assert len(set(waited_in)) == 1
