import asyncio
import time
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from channels.layers import get_channel_layer
from channels.testing import WebsocketCommunicator
from pytest_django.fixtures import Settings
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from signup_sync.front import sockets
from signup_sync.front.gateway import SubmittedUser
from signup_sync.front.page_messages import appearance_of
from signup_sync.front.relay_pool import RelayPool, group_of, relays
from signup_sync.front.states import LightsState
from tests.contract.documents import check_frame
from tests.servers import ValkeyServer
from tests.servers.process import free_port
from tests.unit.signup_sync.front.auth_server import AuthServer, SignUp
from tests.unit.signup_sync.front.conftest import HOST, use_redis
from tests.unit.signup_sync.front.test_relay_pool import Listener
from tests.waiting import PATIENCE, eventually_async

pytestmark = pytest.mark.usefixtures("front")
OpenSocket = Callable[..., WebsocketCommunicator]


async def connected(socket: WebsocketCommunicator) -> WebsocketCommunicator:
    is_accepted, code = await socket.connect(PATIENCE)
    assert is_accepted, code
    return socket


async def close_code(socket: WebsocketCommunicator) -> int:
    answer = await socket.receive_output(PATIENCE)
    assert answer["type"] == "websocket.close", answer
    return answer["code"]


async def state_of(socket: WebsocketCommunicator) -> dict[str, Any]:
    frame: dict[str, Any] = await socket.receive_json_from(PATIENCE)
    check_frame(frame)
    return frame


def without_shown(message: dict[str, Any], outcome: str) -> dict[str, Any]:
    """Return the message without the part that the page draws, after checking its outcome."""
    assert message["shown"]["outcome"] == outcome
    return {name: value for name, value in message.items() if name != "shown"}


async def version_after(socket: WebsocketCommunicator, version: int) -> dict[str, Any]:
    """Receive until the state of that version; earlier versions must ascend."""
    before = 0
    while (state := await state_of(socket))["version"] != version:
        assert before < state["version"] < version
        before = state["version"]
    return state


async def test_a_page_sees_its_sign_up_from_the_beginning_to_the_end(
    open_socket: OpenSocket, auth: AuthServer, signup_id: UUID, user: SubmittedUser
) -> None:
    socket = await connected(open_socket())
    await relays().sign_up(signup_id, user)
    await version_after(socket, 2)
    await auth.turn(str(signup_id), "chat", "FAIL", "duplicate: userId")
    await version_after(socket, 3)
    await auth.turn(str(signup_id), "customer", "SUCCESS")
    assert without_shown(await version_after(socket, 4), "red") == auth.signups[str(signup_id)].state
    assert await socket.receive_nothing()


async def test_a_page_that_connects_late_gets_the_present_state_and_then_later_changes(
    open_socket: OpenSocket, auth: AuthServer, signup_id: UUID, user: SubmittedUser
) -> None:
    await relays().sign_up(signup_id, user)
    await auth.turn(str(signup_id), "chat", "SUCCESS")
    socket = await connected(open_socket())
    await version_after(socket, 3)
    await auth.turn(str(signup_id), "customer", "SUCCESS")
    assert (await state_of(socket))["complete"]


async def test_a_change_while_it_reads_the_state_is_not_missed(
    open_socket: OpenSocket,
    auth: AuthServer,
    signup_id: UUID,
    user: SubmittedUser,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Long, so that no second read can hide a change that the first one missed.
    settings.STREAM_HEARTBEAT = 600
    await relays().sign_up(signup_id, user)
    read = relays().gateway.read_state

    async def read_and_changed(signup_id: UUID) -> LightsState | None:
        state = await read(signup_id)
        async with Listener(signup_id) as listener:
            await auth.turn(str(signup_id), "chat", "SUCCESS")
            await listener.hears(3)
        return state

    monkeypatch.setattr(relays().gateway, "read_state", read_and_changed)
    socket = await connected(open_socket())
    await version_after(socket, 3)


async def test_no_state_is_sent_twice_or_backwards(
    open_socket: OpenSocket, auth: AuthServer, signup_id: UUID, user: SubmittedUser
) -> None:
    await relays().sign_up(signup_id, user)
    socket = await connected(open_socket())
    assert (await state_of(socket))["version"] == 2
    layer = get_channel_layer()
    old = auth.signups[str(signup_id)].event.decode().split("data: ")[1].strip()
    for text in (old, old.replace('"version": 2', '"version": 1')):
        await layer.group_send(group_of(signup_id), {"type": "signup.news", "text": text, "slowness": None})
    await auth.turn(str(signup_id), "chat", "SUCCESS")
    assert (await state_of(socket))["version"] == 3


async def test_a_heartbeat_brings_the_state_of_a_lost_message(
    open_socket: OpenSocket, auth: AuthServer, signup_id: UUID, user: SubmittedUser
) -> None:
    socket = await connected(open_socket())
    layer = get_channel_layer()
    await relays().sign_up(signup_id, user)
    await version_after(socket, 2)
    # Out of the group, the socket misses a change, as when Redis has lost the subscription.
    (channel,) = layer.groups[layer._get_group_channel_name(group_of(signup_id))]
    await layer.group_discard(group_of(signup_id), channel)
    await auth.turn(str(signup_id), "chat", "SUCCESS")
    assert await socket.receive_nothing(0.3)
    await layer.group_add(group_of(signup_id), channel)
    await auth.say(str(signup_id), b": still here\n\n")
    assert (await state_of(socket))["version"] == 3


async def test_a_silent_socket_reads_the_state_from_auth(
    open_socket: OpenSocket, auth: AuthServer, signup_id: UUID, user: SubmittedUser, settings: Settings
) -> None:
    settings.STREAM_HEARTBEAT = 0.2
    await relays().sign_up(signup_id, user)
    socket = await connected(open_socket())
    assert (await state_of(socket))["version"] == 2
    signup = auth.signups[str(signup_id)]
    signup.services["chat"], signup.version = {"status": "SUCCESS"}, 3  # without notifying anybody
    assert (await state_of(socket))["version"] == 3


async def test_the_page_shows_the_final_state_although_the_relaying_process_dies(
    open_socket: OpenSocket, auth: AuthServer, other_process: RelayPool, signup_id: UUID, user: SubmittedUser
) -> None:
    socket = await connected(open_socket())
    await other_process.sign_up(signup_id, user)
    await version_after(socket, 2)
    await other_process.close()  # like kill -9: nothing is released
    await auth.turn(str(signup_id), "chat", "SUCCESS")
    await auth.turn(str(signup_id), "customer", "SUCCESS")
    state = await state_of(socket)
    while not state["complete"]:
        state = await state_of(socket)
    assert auth.resumed


@pytest.mark.parametrize(
    ("query", "word"),
    [
        ("?language=ko", "이미 등록된 사용자 ID"),
        ("?language=xx", "Already had this user ID"),
        ("", "Already had this user ID"),
    ],
)
async def test_messages_are_in_the_language_that_the_page_asks_for(
    open_socket: OpenSocket, auth: AuthServer, signup_id: UUID, user: SubmittedUser, query: str, word: str
) -> None:
    await relays().sign_up(signup_id, user)
    await auth.turn(str(signup_id), "chat", "FAIL", "duplicate: userId")
    message = await version_after(await connected(open_socket(query=query)), 3)
    assert [light["word"] for light in message["shown"]["lights"]][1] == word


async def test_a_socket_tells_the_page_where_to_go_when_all_lights_are_green(
    open_socket: OpenSocket, auth: AuthServer, signup_id: UUID, user: SubmittedUser
) -> None:
    await relays().sign_up(signup_id, user)
    socket = await connected(open_socket())
    assert (await version_after(socket, 2))["shown"]["next"] is None
    await auth.turn(str(signup_id), "chat", "SUCCESS")
    assert (await version_after(socket, 3))["shown"]["next"] is None
    await auth.turn(str(signup_id), "customer", "SUCCESS")
    assert (await version_after(socket, 4))["shown"]["next"] == "/login/"


def test_the_stages_of_a_page_only_rise() -> None:
    stages = [appearance_of(outcome, None)["stage"] for outcome in ("pending", "delayed", "stalled", "green")]
    assert stages == sorted(set(stages))
    assert appearance_of("awaiting", None)["stage"] == appearance_of("pending", None)["stage"]
    assert {appearance_of(outcome, None)["stage"] for outcome in ("green", "red", "refused", "lapsed")} == {stages[-1]}


async def test_delayed_is_reported_once(
    open_socket: OpenSocket, auth: AuthServer, signup_id: UUID, user: SubmittedUser
) -> None:
    await relays().sign_up(signup_id, user)
    socket = await connected(open_socket())
    await state_of(socket)
    await auth.say(str(signup_id), b"event: delayed\ndata: {}\n\n")
    assert without_shown(await state_of(socket), "delayed") == {"signupId": str(signup_id), "delayed": True}
    await auth.say(str(signup_id), b": still here\n\n")
    assert await socket.receive_nothing(0.2)
    await auth.turn(str(signup_id), "chat", "SUCCESS")
    assert without_shown(await state_of(socket), "delayed")["version"] == 3


async def test_stalled_is_reported_once_and_never_taken_back(
    open_socket: OpenSocket, auth: AuthServer, signup_id: UUID, user: SubmittedUser
) -> None:
    await relays().sign_up(signup_id, user)
    socket = await connected(open_socket())
    await state_of(socket)
    for event in (b"stalled", b"delayed", b"stalled"):
        await auth.say(str(signup_id), b"event: " + event + b"\ndata: {}\n\n")
    assert without_shown(await state_of(socket), "stalled") == {"signupId": str(signup_id), "stalled": True}
    assert await socket.receive_nothing(0.2)


async def test_a_page_that_connects_late_is_told_that_its_sign_up_is_stalled(
    open_socket: OpenSocket, auth: AuthServer, signup_id: UUID
) -> None:
    auth.signups[str(signup_id)] = SignUp(str(signup_id), {}, is_stalled=True)
    socket = await connected(open_socket())
    assert (await state_of(socket))["version"] == 1
    assert without_shown(await state_of(socket), "stalled") == {"signupId": str(signup_id), "stalled": True}


async def test_a_socket_with_heartbeats_does_not_read_the_state(
    open_socket: OpenSocket, auth: AuthServer, signup_id: UUID, user: SubmittedUser, settings: Settings
) -> None:
    settings.STREAM_HEARTBEAT = 1.0
    await relays().sign_up(signup_id, user)
    socket = await connected(open_socket())
    await state_of(socket)
    end = time.monotonic() + 4 * settings.STREAM_HEARTBEAT

    async def is_over() -> bool:
        await auth.say(str(signup_id), b": still here\n\n")
        return time.monotonic() > end

    await eventually_async(is_over)
    assert auth.reads == 1


async def test_a_gateway_that_comes_back_is_asked_again(
    open_socket: OpenSocket, auth: AuthServer, signup_id: UUID, settings: Settings
) -> None:
    auth.signups[str(signup_id)] = SignUp(str(signup_id), {})
    settings.GATEWAY_URL = f"http://{HOST}:{free_port()}"
    socket = await connected(open_socket())
    assert await socket.receive_nothing(0.2)
    relays().gateway._address = auth.url
    assert (await state_of(socket))["version"] == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"origin": None},
        {"origin": "null"},
        {"origin": ""},
        {"origin": "http://evil.example"},
        {"origin": "http://evil.example", "host": "evil.example"},
        {"origin": f"http://{HOST}:9999"},
        {"origin": f"http://{HOST}:8000.evil.example"},
        {"origin": f"https://{HOST}:8000"},
        {"origin": f"ftp://{HOST}:8000"},
        {"origin": "http://["},
        {"host": None},
    ],
)
async def test_a_page_of_another_origin_gets_no_socket(open_socket: OpenSocket, changes: dict[str, str | None]) -> None:
    is_accepted, _ = await open_socket(**changes).connect(PATIENCE)
    assert not is_accepted


@pytest.mark.parametrize(("says", "origin"), [("https", "https"), ("http", "http"), (None, "http")])
async def test_behind_a_proxy_the_origins_scheme_is_the_one_that_the_proxy_reports(
    open_socket: OpenSocket, settings: Settings, says: str | None, origin: str
) -> None:
    def proxied(origin: str) -> WebsocketCommunicator:
        socket = open_socket(**{"x-forwarded-proto": says, "host": "localhost"}, origin=f"{origin}://localhost")
        socket.application = ProxyHeadersMiddleware(socket.application, trusted_hosts=["10.0.0.1"])
        socket.scope |= {"client": ["10.0.0.1", 1], "scheme": "ws"}
        return socket

    await connected(proxied(origin))
    other = {"http": "https", "https": "http"}[origin]
    assert not (await proxied(other).connect(PATIENCE))[0]


async def test_without_a_proxy_nobody_may_name_the_scheme(open_socket: OpenSocket) -> None:
    socket = open_socket(**{"x-forwarded-proto": "https"}, origin=f"https://{HOST}:8000")
    assert not (await socket.connect(PATIENCE))[0]


async def test_over_tls_the_origin_is_https(open_socket: OpenSocket) -> None:
    socket = open_socket(origin=f"https://{HOST}:8000")
    socket.scope["scheme"] = "wss"
    await connected(socket)


async def test_an_origin_behind_a_proxy_is_trusted_if_the_settings_list_it(
    open_socket: OpenSocket, settings: Settings
) -> None:
    settings.CSRF_TRUSTED_ORIGINS = ["https://signup.example"]
    await connected(open_socket(origin="https://signup.example", host="web:8000"))


@pytest.mark.parametrize("cookie", [None, "", "signup_browser=made-up", "signup_browser=a:b:c"])
async def test_the_socket_of_another_browser_is_closed_as_refused(open_socket: OpenSocket, cookie: str | None) -> None:
    assert await close_code(await connected(open_socket(cookie=cookie))) == sockets.REFUSED


async def test_a_made_up_ticket_is_refused(open_socket: OpenSocket) -> None:
    assert await close_code(await connected(open_socket(ticket="nonsense"))) == sockets.REFUSED


async def test_an_expired_ticket_closes_the_socket_as_expired(
    open_socket: OpenSocket, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    socket = open_socket()
    later = time.time() + settings.TICKET_MAX_AGE + 1
    monkeypatch.setattr(time, "time", lambda: later)
    assert await close_code(await connected(socket)) == sockets.EXPIRED


async def test_no_other_path_is_a_socket(visitor: str) -> None:
    headers = [(b"origin", b"http://127.0.0.1"), (b"host", b"127.0.0.1")]
    socket = WebsocketCommunicator(sockets.websocket_application, "/ws/other/", headers=headers)
    assert not (await socket.connect(PATIENCE))[0]


async def test_a_few_messages_of_a_page_are_ignored(open_socket: OpenSocket) -> None:
    socket = await connected(open_socket())
    await socket.send_to(text_data="hello")
    assert await socket.receive_nothing(0.2)


@pytest.mark.parametrize("flood", [["x"] * (sockets.MESSAGES_MAX + 1), ["x" * (sockets.MESSAGE_LENGTH_MAX + 1)]])
async def test_a_flood_closes_the_socket(open_socket: OpenSocket, flood: list[str]) -> None:
    socket = await connected(open_socket())
    for text in flood:
        await socket.send_to(text_data=text)
    assert await close_code(socket) == sockets.POLICY_VIOLATION


async def test_a_binary_message_closes_the_socket(open_socket: OpenSocket) -> None:
    socket = await connected(open_socket())
    await socket.send_to(bytes_data=b"\x00")
    assert await close_code(socket) == sockets.POLICY_VIOLATION


async def test_a_socket_that_closes_leaves_nothing_behind(
    open_socket: OpenSocket, auth: AuthServer, signup_id: UUID, user: SubmittedUser
) -> None:
    await relays().sign_up(signup_id, user)
    socket = await connected(open_socket())
    await state_of(socket)
    await socket.disconnect()
    assert not relays()._watched
    assert get_channel_layer().groups == {}


async def test_without_redis_a_new_socket_reads_the_state_every_second(
    open_socket: OpenSocket, auth: AuthServer, signup_id: UUID, user: SubmittedUser, settings: Settings
) -> None:
    use_redis(settings, f"redis://{HOST}:{free_port()}/0")
    await relays().sign_up(signup_id, user)
    socket = await connected(open_socket())
    assert (await state_of(socket))["version"] == 2
    await auth.turn(str(signup_id), "chat", "SUCCESS")
    assert (await state_of(socket))["version"] == 3


@pytest.mark.parametrize("fault", ["killed", "frozen"])
async def test_a_socket_gets_every_light_during_an_outage_of_redis(
    fault: str, open_socket: OpenSocket, auth: AuthServer, signup_id: UUID, user: SubmittedUser, settings: Settings
) -> None:
    with ValkeyServer() as own:
        use_redis(settings, own.env["REDIS_URL"])
        # Long, so that no heartbeat hides a lost message.
        settings.STREAM_HEARTBEAT = 600
        await relays().sign_up(signup_id, user)
        socket = await connected(open_socket())
        assert (await state_of(socket))["version"] == 2
        (own.kill if fault == "killed" else own.pause)()
        await auth.turn(str(signup_id), "chat", "SUCCESS")
        assert (await state_of(socket))["version"] == 3
        await (asyncio.to_thread(own.start) if fault == "killed" else asyncio.to_thread(own.resume))
        await auth.turn(str(signup_id), "customer", "SUCCESS")
        assert (await state_of(socket))["version"] == 4


async def test_a_redis_that_dies_and_comes_back_ends_no_socket(
    open_socket: OpenSocket,
    auth: AuthServer,
    signup_id: UUID,
    user: SubmittedUser,
    settings: Settings,
) -> None:
    with ValkeyServer() as own:
        use_redis(settings, own.env["REDIS_URL"])
        settings.STREAM_HEARTBEAT = 0.5
        await relays().sign_up(signup_id, user)
        socket = await connected(open_socket())
        assert (await state_of(socket))["version"] == 2
        own.kill()
        await auth.turn(str(signup_id), "chat", "SUCCESS")
        assert (await state_of(socket))["version"] == 3
        await asyncio.to_thread(own.start)
        await auth.turn(str(signup_id), "customer", "SUCCESS")
        assert (await state_of(socket))["complete"]
        await socket.disconnect()
        await get_channel_layer().flush()


async def test_a_client_that_is_gone_before_the_server_knows_leaves_nothing_behind(
    auth: AuthServer, signup_id: UUID, user: SubmittedUser, open_socket: OpenSocket
) -> None:
    """daphne raises for a send to a client that has left, until its `websocket.disconnect` is handled."""
    is_gone = False
    answers: list[dict[str, Any]] = []
    incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def send(message: dict[str, Any]) -> None:
        if is_gone:
            raise RuntimeError("Attempt to send on a closed protocol")
        answers.append(message)

    await relays().sign_up(signup_id, user)
    incoming.put_nowait({"type": "websocket.connect"})
    running = asyncio.create_task(sockets.websocket_application(open_socket().scope, incoming.get, send))

    async def is_shown() -> bool:
        return bool(answers) and answers[-1]["type"] == "websocket.send"

    await eventually_async(is_shown)
    is_gone = True
    await auth.turn(str(signup_id), "chat", "SUCCESS")

    async def is_relayed() -> bool:
        relay = relays()._running[signup_id]
        return relay.state.version == 3 and not relays()._news

    await eventually_async(is_relayed)
    incoming.put_nowait({"type": "websocket.disconnect", "code": 1006})
    await asyncio.wait_for(running, PATIENCE)
    assert not relays()._watched
    assert get_channel_layer().groups == {}
