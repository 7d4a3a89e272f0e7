"""A socket's rules, one by one. Fakes replace the browser, the channel layer and auth; there is no server, and pauses
have no length. test_sockets.py has real ones."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest
from pytest_django.fixtures import Settings
from redis.exceptions import RedisError
from structlog.contextvars import get_contextvars

from runtime.held_connections import RETRY_AFTER, HeldConnections
from signup_sync.front import sockets, tickets
from signup_sync.front.gateway import GatewayError
from signup_sync.front.sockets import (
    EXPIRED,
    MESSAGE_LENGTH_MAX,
    MESSAGES_MAX,
    POLICY_VIOLATION,
    REFUSED,
    SILENT_HEARTBEATS,
    TRY_AGAIN_LATER,
    SignUpSocket,
    socket_path,
)
from signup_sync.front.states import LightsState, read_state
from signup_sync.front.tickets import TicketError, TicketExpiredError
from tests.waiting import PATIENCE, eventually_async

SIGNUP_ID = uuid4()
HOST = "signup.example"


def text(version: int, *, complete: bool = False, **more: Any) -> str:
    services = {name: {"status": "SUCCESS" if complete else "PENDING"} for name in ("auth", "chat")}
    return json.dumps(
        {"signupId": str(SIGNUP_ID), "version": version, "complete": complete, "services": services} | more
    )


class Layer:
    """The channel layer: records joins and leaves, and fails or hangs on demand."""

    def __init__(self, said: list[Any]) -> None:
        self.messages: asyncio.Queue[Any] = asyncio.Queue()
        self.channels: list[str] = []
        self.members: list[tuple[str, str]] = []
        self.left: list[tuple[str, str]] = []
        self.error: Exception | None = None
        self.hangs = False
        self._said = said

    async def group_add(self, group: str, channel: str) -> None:
        self._said.append("join")
        await self._answer()
        self.members.append((group, channel))

    async def group_discard(self, group: str, channel: str) -> None:
        await self._answer()
        self.left.append((group, channel))

    async def receive(self, channel: str) -> Any:
        self.channels.append(channel)
        message = await self.messages.get()
        if isinstance(message, Exception):
            raise message
        return message

    async def _answer(self) -> None:
        if self.hangs:
            await asyncio.Event().wait()
        if self.error:
            raise self.error


class Auth:
    """Answers each read of the state with the next of `states`, the last one repeatedly; exceptions are raised."""

    def __init__(self, said: list[Any]) -> None:
        self.states: list[LightsState | Exception | None] = [None]
        self.reads: list[UUID] = []
        self.watched: list[tuple[str, UUID]] = []
        self.read_again: Callable[[], None] = lambda: None
        self.gateway = self
        self._said = said

    async def read_state(self, signup_id: UUID) -> LightsState | None:
        self._said.append("read")
        self.reads.append(signup_id)
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        if isinstance(state, Exception):
            raise state
        return state

    def watch(self, signup_id: UUID, read_again: Callable[[], None]) -> None:
        self.watched.append(("watch", signup_id))
        self.read_again = read_again

    def unwatch(self, signup_id: UUID, read_again: Callable[[], None]) -> None:
        assert read_again == self.read_again
        self.watched.append(("unwatch", signup_id))


class Page:
    """A browser's page with one socket."""

    def __init__(self, said: list[Any], layer: Layer, auth: Auth) -> None:
        self.layer, self.auth, self.said = layer, auth, said
        self.incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.outgoing: list[dict[str, Any]] = []
        self.error: Exception | None = None
        self.sleeps: list[float] = []
        self.failures: list[int] = []
        self.timeouts: list[float] = []
        visitor = tickets.new_browser()
        self.scope: dict[str, Any] = {
            "type": "websocket",
            "path": "/",
            "query_string": b"",
            "client": ["192.0.2.1", 1],
            "headers": [(b"cookie", f"{tickets.BROWSER_COOKIE}={tickets._cookie_signer.sign(visitor)}".encode())],
            "url_route": {"kwargs": {"ticket": tickets.page_ticket(SIGNUP_ID, visitor)}},
        }
        self.socket = SignUpSocket()
        self.running: asyncio.Task[None] | None = None

    async def send(self, message: dict[str, Any]) -> None:
        self.said.append(message["type"])
        if self.error:
            raise self.error
        self.outgoing.append(message)

    def open(self) -> "Page":
        self.incoming.put_nowait({"type": "websocket.connect"})
        self.running = asyncio.create_task(self.socket(self.scope, self.incoming.get, self.send))
        return self

    def news(self, *texts: str, **more: Any) -> None:
        for each in texts:
            self.layer.messages.put_nowait({"type": "signup.news", "text": each, "slowness": None} | more)

    async def leave(self) -> None:
        self.incoming.put_nowait({"type": "websocket.disconnect", "code": 1001})
        async with asyncio.timeout(PATIENCE):
            await self.running

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The messages that were sent, without the part that the page draws."""
        sent = [json.loads(message["text"]) for message in self.outgoing if message["type"] == "websocket.send"]
        return [{name: value for name, value in each.items() if name != "shown"} for each in sent]

    @property
    def outcomes(self) -> list[str]:
        return [
            json.loads(message["text"])["shown"]["outcome"]
            for message in self.outgoing
            if message["type"] == "websocket.send"
        ]

    @property
    def versions(self) -> list[int | None]:
        return [message.get("version") for message in self.messages]

    @property
    def types(self) -> list[str]:
        return [message["type"].removeprefix("websocket.") for message in self.outgoing]


@pytest.fixture
async def page(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> AsyncIterator[Page]:
    said: list[Any] = []
    layer, auth = Layer(said), Auth(said)
    page = Page(said, layer, auth)
    settings.STREAM_HEARTBEAT = 300

    async def sleep(seconds: float) -> None:
        page.sleeps.append(seconds)
        await asyncio.sleep(0)

    def reconnect_pause(failures: int) -> float:
        page.failures.append(failures)
        return 0.5

    def timeout(seconds: float) -> Any:
        page.timeouts.append(seconds)
        return asyncio.timeout(seconds)

    monkeypatch.setattr(
        sockets, "asyncio",
        SimpleNamespace(Event=asyncio.Event, timeout=timeout, create_task=asyncio.create_task, sleep=sleep),
    )  # fmt: skip
    monkeypatch.setattr(sockets, "get_channel_layer", lambda: layer)
    monkeypatch.setattr(sockets, "relays", lambda: auth)
    monkeypatch.setattr(sockets, "reconnect_pause", reconnect_pause)
    monkeypatch.setattr(sockets, "held_sockets", HeldConnections())
    yield page
    if page.running and not page.running.done():
        layer.hangs = False
        await page.leave()


async def holds(condition: Callable[[], object], what: str) -> None:
    async def does() -> bool:
        return bool(condition())

    await eventually_async(does, what=what)


# --- Opening ------------------------------------------------------------------------------------------------------


async def test_a_socket_joins_its_group_before_it_reads_the_state(page: Page) -> None:
    page.auth.states = [read_state(text(1))]
    page.open()
    await holds(lambda: page.versions == [1], "the state is shown")
    assert page.said == ["join", "websocket.accept", "read", "websocket.send"]
    [(group, channel)] = page.layer.members
    assert group == f"signup.{SIGNUP_ID}"
    assert channel == page.layer.channels[0]
    assert channel.startswith("signup.")
    assert page.auth.reads == [SIGNUP_ID]
    assert page.messages == [json.loads(text(1))]
    await page.leave()
    assert page.layer.left == [(group, channel)]
    assert sockets.held_sockets._counts == {}


async def test_the_log_names_the_sign_up_of_a_socket(page: Page) -> None:
    seen: list[Any] = []
    read = page.auth.read_state

    async def noted(signup_id: UUID) -> LightsState | None:
        seen.append(get_contextvars().get("signup_id"))
        return await read(signup_id)

    page.auth.read_state = noted
    page.open()
    await holds(lambda: seen, "the state is read")
    assert seen[0] == str(SIGNUP_ID)


@pytest.mark.parametrize(("error", "code"), [(TicketError("no"), REFUSED), (TicketExpiredError("old"), EXPIRED)])
async def test_a_page_learns_why_its_ticket_is_refused(
    page: Page, monkeypatch: pytest.MonkeyPatch, error: TicketError, code: int
) -> None:
    def refuse(ticket: str, browser: str | None) -> UUID:
        raise error

    monkeypatch.setattr(sockets, "open_page_ticket", refuse)
    page.open()
    await holds(lambda: page.types == ["accept", "close"], "it is closed")
    assert page.outgoing[1]["code"] == code
    await page.leave()
    assert (page.layer.members, page.layer.left, page.auth.reads, page.auth.watched) == ([], [], [], [])


async def test_a_ticket_is_opened_for_the_browser_of_the_cookie(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    page.scope["headers"] = []
    page.open()
    await holds(lambda: page.types == ["accept", "close"], "it is closed")
    assert page.outgoing[1]["code"] == REFUSED


@pytest.mark.parametrize(
    ("query", "word"),
    [
        (b"", "Creating"), (b"language=en", "Creating"), (b"language=ko", None), (b"language=xx", "Creating"),
        (b"other=ko", "Creating"),
    ],
)  # fmt: skip
async def test_a_page_is_drawn_in_a_language_that_there_is(page: Page, query: bytes, word: str | None) -> None:
    page.scope["query_string"] = query
    page.auth.states = [read_state(text(1))]
    page.open()
    await holds(lambda: page.versions == [1], "the state is shown")
    title = json.loads(page.outgoing[-1]["text"])["shown"]["title"]
    assert title.isascii() is (word is not None)


async def test_a_page_that_asks_for_no_language_is_drawn_in_that_of_the_installation(
    page: Page, settings: Settings
) -> None:
    settings.LANGUAGE_CODE = "ko"
    page.auth.states = [read_state(text(1))]
    page.open()
    await holds(lambda: page.versions == [1], "the state is shown")
    assert not json.loads(page.outgoing[-1]["text"])["shown"]["title"].isascii()


# --- Limits -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("extensions", [None, {}, {"websocket.http.response": {}}])
@pytest.mark.parametrize("limit", ["HELD_PER_ADDRESS", "HELD_PER_SIGNUP"])
async def test_a_socket_above_the_limit_is_refused(
    page: Page, settings: Settings, extensions: Mapping[str, Any] | None, limit: str
) -> None:
    setattr(settings, limit, 1)
    held = {"address": "192.0.2.1"} if limit == "HELD_PER_ADDRESS" else {"signup": str(SIGNUP_ID)}
    page.scope |= {} if extensions is None else {"extensions": extensions}
    with sockets.held_sockets.one(**held):
        page.open()
        async with asyncio.timeout(PATIENCE):
            await page.running
        if extensions:
            start, body = page.outgoing
            assert start == {
                "type": "websocket.http.response.start", "status": 429,
                "headers": [(b"retry-after", b"%d" % RETRY_AFTER), (b"cache-control", b"no-store")],
            }  # fmt: skip
            assert body == {
                "type": "websocket.http.response.body", "body": b"Too many sockets are open.", "more_body": False,
            }  # fmt: skip
        else:
            assert page.outgoing == [{"type": "websocket.close", "code": TRY_AGAIN_LATER}]
        assert page.layer.members == []
    assert sockets.held_sockets._counts == {}


async def test_sockets_above_the_limit_of_an_address_are_refused_before_their_tickets_are_checked(
    page: Page, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.HELD_PER_ADDRESS = 1
    checked: list[str] = []
    monkeypatch.setattr(sockets, "open_page_ticket", lambda ticket, browser: checked.append(ticket))
    with sockets.held_sockets.one(address="192.0.2.1"):
        page.open()
        async with asyncio.timeout(PATIENCE):
            await page.running
    assert checked == []


@pytest.mark.parametrize("client", ["none", "null"])
async def test_a_client_without_an_address_is_not_counted_by_address(
    page: Page, settings: Settings, client: str
) -> None:
    settings.HELD_PER_ADDRESS = 1
    page.scope["client"] = None
    if client == "none":
        del page.scope["client"]
    page.open()
    await holds(lambda: page.types == ["accept"], "it is open")
    assert {what for what, _ in sockets.held_sockets._counts} == {"signup"}


async def test_a_few_short_messages_are_ignored_and_one_more_closes_the_socket(page: Page) -> None:
    page.open()
    for _ in range(MESSAGES_MAX):
        page.incoming.put_nowait({"type": "websocket.receive", "text": "x" * MESSAGE_LENGTH_MAX})
    await holds(lambda: page.socket._received == MESSAGES_MAX, "all have arrived")
    assert page.types == ["accept"]
    page.incoming.put_nowait({"type": "websocket.receive", "text": "x"})
    await holds(lambda: page.types == ["accept", "close"], "it is closed")
    assert page.outgoing[1]["code"] == POLICY_VIOLATION


@pytest.mark.parametrize("message", [{"text": "x" * (MESSAGE_LENGTH_MAX + 1)}, {"bytes": b"x"}])
async def test_a_long_or_binary_message_closes_the_socket(page: Page, message: Mapping[str, Any]) -> None:
    page.open()
    page.incoming.put_nowait({"type": "websocket.receive", **message})
    await holds(lambda: page.types == ["accept", "close"], "it is closed")
    assert page.outgoing[1]["code"] == POLICY_VIOLATION


# --- News ---------------------------------------------------------------------------------------------------------


async def test_each_newer_state_is_shown_and_no_other(page: Page) -> None:
    page.open()
    page.news(text(2), text(2), text(1), text(4), text(3), text(5, complete=True), text(5, complete=True))
    await holds(lambda: page.versions[-1:] == [5], "the last state is shown")
    assert page.versions == [2, 4, 5]
    assert page.outcomes == ["pending", "pending", "green"]
    await holds(lambda: page.layer.messages.empty(), "all news have arrived")
    assert page.versions == [2, 4, 5]
    assert [json.loads(message["text"])["shown"]["isOver"] for message in page.outgoing[1:]] == [False, False, True]


@pytest.mark.parametrize(
    ("slownesses", "said"),
    [
        (["delayed"], ["delayed"]),
        (["delayed", "delayed"], ["delayed"]),
        (["delayed", "stalled"], ["delayed", "stalled"]),
        (["stalled", "delayed", "stalled"], ["stalled"]),
        ([None], []),
    ],
)
async def test_delayed_and_stalled_are_reported_once_and_stalled_is_permanent(
    page: Page, slownesses: list[str | None], said: list[str]
) -> None:
    page.open()
    for slowness in slownesses:
        page.news(text(2), slowness=slowness)
    page.news(text(3))
    await holds(lambda: page.versions[-1:] == [3], "the last state is shown")
    assert page.messages[1:-1] == [{"signupId": str(SIGNUP_ID), slowness: True} for slowness in said]
    assert page.outcomes == ["pending", *said, (said or ["pending"])[-1]]


async def test_a_message_of_an_earlier_release_without_delay_or_stall_is_accepted(page: Page) -> None:
    page.open()
    page.layer.messages.put_nowait({"type": "signup.news", "text": text(2)})
    await holds(lambda: page.versions == [2], "the state is shown")


async def test_a_complete_sign_up_is_not_delayed(page: Page) -> None:
    page.open()
    page.news(text(5, complete=True), slowness="delayed")
    await holds(lambda: page.versions == [5], "the state is shown")
    await page.leave()
    assert page.outcomes == ["green"]


async def test_without_a_state_no_delay_is_reported(page: Page) -> None:
    await page.socket._show_slowness("delayed")
    assert page.socket._slowness is None


async def test_a_subscription_that_fails_does_not_end_the_socket(page: Page) -> None:
    page.open()
    page.layer.messages.put_nowait(RedisError("away"))
    page.news(text(2))
    await holds(lambda: page.versions == [2], "the state is shown")


@pytest.mark.parametrize("error", [RuntimeError("closed"), OSError("gone")])
async def test_sending_to_a_browser_that_has_left_raises_nothing(page: Page, error: Exception) -> None:
    page.open()
    await holds(lambda: page.types == ["accept"], "it is open")
    page.error = error
    page.news(text(2))
    await holds(lambda: page.socket._state is not None, "it has arrived")
    page.error = None
    page.news(text(3))
    await holds(lambda: page.versions == [3], "a later one is sent")


# --- Reading ------------------------------------------------------------------------------------------------------


async def test_a_sign_up_is_watched_while_it_is_incomplete(page: Page) -> None:
    page.open()
    page.news(text(1), text(2))
    await holds(lambda: page.versions == [1, 2], "the states are shown")
    assert page.auth.watched == [("watch", SIGNUP_ID)]
    page.news(text(3, complete=True))
    await holds(lambda: page.versions[-1:] == [3], "the last state is shown")
    assert page.auth.watched == [("watch", SIGNUP_ID), ("unwatch", SIGNUP_ID)]
    await page.leave()
    assert len(page.auth.watched) == 2


async def test_a_page_that_leaves_is_no_longer_watching(page: Page) -> None:
    page.auth.states = [read_state(text(1))]
    page.open()
    await holds(lambda: page.versions == [1], "the state is shown")
    following = page.socket._following
    await page.leave()
    assert page.auth.watched == [("watch", SIGNUP_ID), ("unwatch", SIGNUP_ID)]
    await holds(following.cancelled, "it reads no more")


async def test_a_complete_sign_up_is_read_once(page: Page) -> None:
    page.auth.states = [read_state(text(5, complete=True))]
    page.open()
    await holds(lambda: page.versions == [5], "the state is shown")
    page.socket._read_again()
    await holds(page.socket._following.done, "it reads no more")
    assert (page.versions, page.auth.reads) == ([5], [SIGNUP_ID])
    assert page.auth.watched == []


async def test_a_state_that_is_read_says_that_it_is_stalled(page: Page) -> None:
    page.auth.states = [read_state(text(1, stalled=True))]
    page.open()
    await holds(lambda: len(page.messages) == 2, "both are sent")
    assert page.outcomes == ["stalled", "stalled"]
    assert page.messages[1] == {"signupId": str(SIGNUP_ID), "stalled": True}


async def test_a_state_that_cannot_be_read_is_read_again_after_growing_pauses(page: Page) -> None:
    busy, away = GatewayError(503, "busy", retry_after=7), GatewayError(503, "away")
    page.auth.states = [away, busy, away, read_state(text(1)), away, read_state(text(2))]
    page.open()
    await holds(lambda: page.versions == [1], "the state is shown")
    page.auth.read_again()
    await holds(lambda: page.versions == [1, 2], "the next state is shown")
    assert page.failures == [0, 1, 2, 0]
    assert page.sleeps == [0.5, 7, 0.5, 0.5]


@pytest.mark.parametrize("lapses", [True, False])
async def test_a_sign_up_that_is_gone_has_lapsed_if_it_waited_for_its_confirmation(page: Page, lapses: bool) -> None:
    waiting = {"awaiting": "confirmation"} if lapses else {}
    page.auth.states = [read_state(text(1, **waiting)), None]
    page.open()
    await holds(lambda: page.versions == [1], "the state is shown")
    page.auth.read_again()
    await holds(lambda: len(page.auth.reads) == 2, "it has been read again")
    if lapses:
        await holds(lambda: page.socket._following.done(), "it reads no more")
        assert page.messages[1:] == [{"signupId": str(SIGNUP_ID), "expired": True}]
        assert page.outcomes[1:] == ["lapsed"]
        assert page.auth.watched == [("watch", SIGNUP_ID), ("unwatch", SIGNUP_ID)]
    else:
        assert page.messages[1:] == []


async def test_a_sign_up_that_auth_does_not_have_yet_is_read_again(page: Page) -> None:
    page.auth.states = [None, read_state(text(1))]
    page.open()
    await holds(lambda: len(page.auth.reads) == 1, "it has been read")
    page.socket._read_again()
    await holds(lambda: page.versions == [1], "the state is shown")
    page.news(text(2))
    await holds(lambda: page.versions == [1, 2], "the next one is shown")
    assert len(page.auth.reads) == 2, "it reads once when it is told to"


# --- Silence ------------------------------------------------------------------------------------------------------


async def test_a_socket_reads_the_state_after_a_few_silent_heartbeats(page: Page, settings: Settings) -> None:
    settings.STREAM_HEARTBEAT = 0.02
    page.open()
    await holds(lambda: len(page.auth.reads) > 2, "it reads again and again")
    assert SILENT_HEARTBEATS * 0.02 in page.timeouts


async def test_a_socket_outside_its_group_reads_the_state_every_second_and_tries_to_join(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "AWAY_PAUSE", 0.01)
    page.layer.error = RedisError("away")
    page.open()
    await holds(lambda: len(page.auth.reads) > 2, "it reads again and again")
    assert page.said.count("join") > 2
    page.layer.error = None
    await holds(lambda: page.layer.members, "it has joined")
    joined = page.said.count("join")
    page.socket._read_again()
    reads = len(page.auth.reads)
    await holds(lambda: len(page.auth.reads) > reads, "it has read again")
    assert page.said.count("join") == joined


async def test_messages_restart_the_silence_and_end_no_wait(page: Page) -> None:
    page.open()
    await holds(lambda: page.auth.reads, "it has read")
    page.news(text(1), text(2), text(3))
    await holds(lambda: page.versions == [1, 2, 3], "the states are shown")
    assert len(page.auth.reads) == 1
    waits = page.timeouts.count(SILENT_HEARTBEATS * 300)
    page.news(text(3))
    await holds(lambda: page.timeouts.count(SILENT_HEARTBEATS * 300) > waits, "the wait begins again")
    assert len(page.auth.reads) == 1


async def test_a_hanging_channel_layer_does_not_block_opening_or_closing_a_socket(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "ANSWERS_WITHIN", 0.01)
    page.layer.hangs = True
    page.auth.states = [read_state(text(1))]
    page.open()
    await holds(lambda: page.versions == [1], "the state is shown")
    await page.leave()
    assert page.layer.left == []


# --- Origins ------------------------------------------------------------------------------------------------------


def origin_scope(origin: str | None, *, host: str = HOST, **more: Any) -> dict[str, Any]:
    headers = [(b"host", host.encode())] + ([(b"origin", origin.encode("latin-1"))] if origin is not None else [])
    return {"type": "websocket", "path": "/", "query_string": b"", "headers": headers, "scheme": "ws"} | more


@pytest.mark.parametrize(
    ("scope", "is_own"),
    [
        (origin_scope(f"http://{HOST}"), True),
        (origin_scope(f"https://{HOST}", scheme="wss"), True),
        (origin_scope(f"https://{HOST}"), False),
        (origin_scope(f"http://{HOST}", scheme="wss"), False),
        (origin_scope(f"http://{HOST}:8000", host=f"{HOST}:8000"), True),
        (origin_scope(f"http://{HOST}:8000"), False),
        (origin_scope("http://evil.example"), False),
        (origin_scope("http://evil.example", host="evil.example"), False),
        (origin_scope("https://trusted.example"), True),
        (origin_scope(None), False),
        (origin_scope(""), False),
        (origin_scope("null"), False),
        (origin_scope(f"http://{HOST}\xff"), False),
    ],
    ids=range(13),
)
def test_an_origin_is_own_if_scheme_host_and_port_are_those_of_the_page(
    settings: Settings, scope: dict[str, Any], is_own: bool
) -> None:
    settings.ALLOWED_HOSTS = [HOST]
    settings.CSRF_TRUSTED_ORIGINS = ["https://trusted.example"]
    assert sockets._is_own_origin(scope) is is_own


@pytest.mark.parametrize(("origin", "is_let_in"), [(f"http://{HOST}", True), ("http://evil.example", False)])
async def test_only_pages_of_this_origin_reach_the_sockets(settings: Settings, origin: str, is_let_in: bool) -> None:
    settings.ALLOWED_HOSTS = [HOST]
    reached, sent = [], []
    scope = origin_scope(origin)

    async def application(*arguments: Any) -> None:
        reached.append(arguments)

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await sockets.OwnOrigin(application)(scope, receive, send)
    assert reached == ([(scope, receive, send)] if is_let_in else [])
    assert sent == ([] if is_let_in else [{"type": "websocket.close"}])


def test_the_path_of_a_socket_has_its_ticket() -> None:
    assert socket_path("a-ticket") == "/ws/signup/a-ticket/"
