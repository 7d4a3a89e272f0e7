"""The front's backoff while auth is unavailable."""

from collections.abc import Callable
from uuid import UUID

import pytest
from channels.testing import WebsocketCommunicator
from pytest_django.fixtures import Settings

from signup_sync.front import sockets, stream_relay
from signup_sync.front.gateway import SubmittedUser
from signup_sync.front.relay_pool import relays
from tests.servers.process import free_port
from tests.unit.signup_sync.front.auth_server import AuthServer, SignUp, problem
from tests.unit.signup_sync.front.conftest import HOST
from tests.waiting import PATIENCE, eventually_async


@pytest.mark.parametrize(
    ("failures", "most"), [(0, 0.25), (1, 0.5), (2, 1.0), (3, 2.0), (5, 8.0), (6, 10.0), (7, 10.0), (10_000, 10.0)]
)
def test_pauses_double_up_to_ten_seconds_and_spread_over_their_upper_half(failures: int, most: float) -> None:
    pauses = [stream_relay.reconnect_pause(failures) for _ in range(500)]
    assert 0.5 * most <= min(pauses) < 0.6 * most
    assert 0.9 * most < max(pauses) <= most


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of failures before each pause. The pauses themselves are short."""
    failures: list[int] = []

    def reconnect_pause(number: int) -> float:
        failures.append(number)
        return 0.01

    monkeypatch.setattr(stream_relay, "reconnect_pause", reconnect_pause)
    monkeypatch.setattr(sockets, "reconnect_pause", reconnect_pause)
    return failures


@pytest.mark.usefixtures("front")
async def test_a_relay_counts_its_failures_until_a_newer_state_arrives(
    auth: AuthServer, signup_id: UUID, user: SubmittedUser, asked: list[int]
) -> None:
    await relays().sign_up(signup_id, user)
    address = relays().gateway._address
    relays().gateway._address = f"http://{HOST}:{free_port()}"
    await auth.drop_streams()

    async def has_failed_often() -> bool:
        return len(asked) >= 6

    await eventually_async(has_failed_often, what="the relay has failed six times")
    # The stream that broke had delivered a newer state; the following ones did not.
    assert asked[:6] == [0, 1, 2, 3, 4, 5]
    asked.clear()
    relays().gateway._address = address
    await auth.turn(str(signup_id), "chat", "SUCCESS")

    async def is_heard() -> bool:
        return relays()._running[signup_id].state.version == 3

    await eventually_async(is_heard, what="the relay has the newer state")
    asked.clear()
    await auth.drop_streams()

    async def has_broken_again() -> bool:
        return bool(asked)

    await eventually_async(has_broken_again, what="the stream has broken again")
    assert asked[0] == 0


async def test_a_socket_counts_its_failures_until_the_state_is_read(
    open_socket: Callable[..., WebsocketCommunicator],
    auth: AuthServer,
    signup_id: UUID,
    settings: Settings,
    asked: list[int],
) -> None:
    auth.signups[str(signup_id)] = SignUp(str(signup_id), {})
    settings.GATEWAY_URL = f"http://{HOST}:{free_port()}"
    socket = open_socket()
    assert (await socket.connect(PATIENCE))[0]

    async def has_failed_often() -> bool:
        return len(asked) >= 5

    await eventually_async(has_failed_often, what="the socket has failed five times")
    assert asked[:5] == [0, 1, 2, 3, 4]
    relays().gateway._address = auth.url
    assert (await socket.receive_json_from(PATIENCE))["version"] == 1


@pytest.mark.usefixtures("front")
async def test_a_relay_waits_for_as_long_as_auth_asks(
    auth: AuthServer, signup_id: UUID, user: SubmittedUser, asked: list[int]
) -> None:
    await relays().sign_up(signup_id, user)
    auth.stream_problems = [problem(429, retry_after="1")]
    await auth.drop_streams()

    async def is_resumed() -> bool:
        return len(auth.resumed_at) == 2

    await eventually_async(is_resumed, what="it has asked twice")
    refused, taken = auth.resumed_at
    assert taken - refused >= 1
