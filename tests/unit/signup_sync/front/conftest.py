"""A web process of the front inside the test's own event loop, with a real Valkey and a small auth."""

from collections.abc import AsyncIterator, Callable, Iterator
from uuid import UUID

import pytest
from channels.layers import get_channel_layer
from channels.testing import WebsocketCommunicator
from django.test import AsyncClient
from pytest_django.fixtures import Settings

from signup_sync.front import relay_pool, stream_relay, tickets
from signup_sync.front.gateway import SubmittedUser
from signup_sync.front.relay_pool import RelayPool, relays
from signup_sync.front.sockets import websocket_application
from tests.servers import ValkeyServer
from tests.unit.signup_sync.front.auth_server import AuthServer

HOST = "127.0.0.1"
PASSWORD = "four unlikely w0rds"


@pytest.fixture(scope="session")
def valkey() -> Iterator[ValkeyServer]:
    with ValkeyServer() as server:
        yield server


@pytest.fixture
async def auth() -> AsyncIterator[AuthServer]:
    server = AuthServer()
    await server.start()
    yield server
    await server.close()


@pytest.fixture
async def front(
    valkey: ValkeyServer, auth: AuthServer, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[None]:
    """The front's settings, with times short enough for tests, and an orderly shutdown."""
    if not valkey.process.running:
        valkey.start()
    use_redis(settings, valkey.env["REDIS_URL"])
    settings.GATEWAY_URL = auth.url
    settings.SIGNUP_DEADLINE = 5.0
    monkeypatch.setattr(relay_pool, "LEASE_SECONDS", 1)
    monkeypatch.setattr(relay_pool, "TEND_SECONDS", 0.1)
    monkeypatch.setattr(relay_pool, "LEASED_AFTER", 0.03)
    monkeypatch.setattr(relay_pool, "TAKEN_OVER_AFTER", 0.2)
    monkeypatch.setattr(stream_relay, "FIRST_PAUSE", 0.02)
    yield
    await relays().close()
    await get_channel_layer().flush()


def use_redis(settings: Settings, url: str) -> None:
    settings.REDIS_URL = url
    settings.CHANNEL_LAYERS = {
        "default": {
            "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
            "CONFIG": {"hosts": [{"address": url, "socket_timeout": None}]},
        }
    }


@pytest.fixture
def client() -> AsyncClient:
    return AsyncClient(headers={"Host": HOST})


@pytest.fixture
async def other_process(front: None) -> AsyncIterator[RelayPool]:
    """The relays of another web process: they share nothing with `relays()` but Redis and auth."""
    other = RelayPool()
    yield other
    await other.close()


@pytest.fixture
def visitor() -> str:
    return tickets.new_browser()


@pytest.fixture
def signup_id() -> UUID:
    return tickets.new_signup_id()


@pytest.fixture
def user(signup_id: UUID) -> SubmittedUser:
    name = signup_id.hex[-8:]
    return SubmittedUser(user_id=f"user-{name}", user_name="Hong", email=f"{name}@example.org", password=PASSWORD)


@pytest.fixture
async def open_socket(
    front: None, signup_id: UUID, visitor: str
) -> AsyncIterator[Callable[..., WebsocketCommunicator]]:
    """Open sockets like the page of `signup_id` in `browser`, and close them at the end."""
    opened: list[WebsocketCommunicator] = []

    def open_one(**changes: str | None) -> WebsocketCommunicator:
        given: dict[str, str | None] = {
            "ticket": tickets.page_ticket(signup_id, visitor),
            "query": "",
            "cookie": f"{tickets.BROWSER_COOKIE}={tickets._cookie_signer.sign(visitor)}",
            "origin": f"http://{HOST}:8000",
            "host": f"{HOST}:8000",
        }
        given |= changes
        path = f"/ws/signup/{given.pop('ticket')}/{given.pop('query')}"
        headers = [(name.encode(), value.encode()) for name, value in given.items() if value is not None]
        socket = WebsocketCommunicator(websocket_application, path, headers=headers)
        opened.append(socket)
        return socket

    yield open_one
    for socket in opened:
        if not socket.future.done():
            await socket.disconnect()
