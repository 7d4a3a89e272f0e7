"""The page's WebSocket, which sends the lights of one sign-up as they change (docs/asyncapi.yaml).

Channels calls such a class a consumer; it is unrelated to Kafka consumers.
"""

import asyncio
import json
import logging
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from http import HTTPStatus
from io import BytesIO
from typing import Any, Final, cast
from urllib.parse import parse_qsl
from uuid import UUID, uuid4

from channels.consumer import get_handler_name
from channels.exceptions import StopConsumer
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.layers import get_channel_layer
from channels.routing import URLRouter
from channels.utils import await_many_dispatch
from django.conf import settings
from django.core.exceptions import DisallowedHost
from django.core.handlers.asgi import ASGIRequest
from django.http import parse_cookie
from django.urls import path, re_path
from django.utils.translation import override
from structlog.contextvars import bind_contextvars

from livesettings.values import live
from runtime.held_connections import RETRY_AFTER, HeldConnections, TooManyHeldError
from runtime.redis_clients import ANSWERS_WITHIN, AWAY_PAUSE, REDIS_ERRORS
from signup_sync.front.gateway import GatewayError
from signup_sync.front.page_messages import outcome_of, page_message
from signup_sync.front.relay_pool import group_of, relays
from signup_sync.front.states import LightsState, Slowness, read_state
from signup_sync.front.stream_relay import reconnect_pause
from signup_sync.front.tickets import TicketError, TicketExpiredError, browser_of, open_page_ticket
from signup_sync.front.wording import Outcome

logger = logging.getLogger(__name__)

# Close codes. The page explains the first two to the user; after the others it reconnects with backoff.
EXPIRED: Final = 4401
REFUSED: Final = 4403
POLICY_VIOLATION: Final = 1008
TRY_AGAIN_LATER: Final = 1013

# The page sends no messages. Any that arrive are ignored, up to these limits per socket.
MESSAGES_MAX: Final = 20
MESSAGE_LENGTH_MAX: Final = 1024
# A socket that has received neither a change nor a relay's heartbeat for this many intervals reads auth's state itself.
SILENT_HEARTBEATS: Final = 2

held_sockets = HeldConnections()


def socket_path(ticket: str) -> str:
    return f"/ws/signup/{ticket}/"


class SignUpSocket(AsyncWebsocketConsumer):  # type: ignore[misc]  # channels ships no types
    """Sends the state of the ticket's sign-up and each newer state as JSON. Also sends `{"signupId", "delayed": true}`
    when auth calls the sign-up delayed, and likewise `stalled`, and `expired` if it was not confirmed in time. Each
    message has `shown`, which the page draws, in the language that the page asks for."""

    def __init__(self) -> None:
        super().__init__()
        self._is_member = False
        self._state: LightsState | None = None
        self._is_watched = False
        self._slowness: Slowness | None = None
        self._received = 0
        self._heard = asyncio.Event()
        self._must_read = False
        self._following: asyncio.Task[None] | None = None
        self._held = ExitStack()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        # Channels' own method waits for Redis before it handles the handshake, which would get no answer while Redis
        # is unreachable.
        self.scope, self.base_send = scope, send
        self.channel_layer = get_channel_layer()
        self.channel_name = f"signup.{uuid4().hex}"
        try:
            await await_many_dispatch([receive, self._next_news], self.dispatch)
        except StopConsumer:
            pass
        except TooManyHeldError as limit:
            logger.info("refused a WebSocket: too many open for its %s", limit)
            await _send_too_many(scope, send)
        finally:
            self._held.close()
            await self._leave()

    async def _next_news(self) -> Any:
        """Return the next message of the group."""
        while True:
            try:
                return await self.channel_layer.receive(self.channel_name)
            except REDIS_ERRORS:
                # The layer has already created the queue that the group fills. Only its subscription to this socket's
                # own channel has failed, which doesn't matter because nothing is sent there.
                continue

    async def dispatch(self, message: Mapping[str, Any]) -> None:
        # Channels' own method uses a thread for each message, to close database connections. This socket has none.
        await getattr(self, get_handler_name(message))(message)

    async def connect(self) -> None:
        client = self.scope.get("client")
        # Check the limit first: verifying the ticket costs CPU.
        self._held.enter_context(held_sockets.one(address=client and client[0]))
        browser = browser_of(parse_cookie(_header(self.scope, b"cookie") or ""))
        try:
            self._signup_id: UUID = open_page_ticket(self.scope["url_route"]["kwargs"]["ticket"], browser)
        except TicketError as refused:
            # Accept before closing: from a refused handshake, the page would not learn the reason.
            await self.accept()
            await self.close(code=EXPIRED if isinstance(refused, TicketExpiredError) else REFUSED)
            return
        bind_contextvars(signup_id=str(self._signup_id))
        language = dict(parse_qsl(self.scope["query_string"].decode("latin-1"))).get("language")
        self._language = language if language in dict(settings.LANGUAGES) else settings.LANGUAGE_CODE
        self._held.enter_context(held_sockets.one(signup=str(self._signup_id)))
        # Join the group before reading the state: a change in between then arrives twice rather than never.
        await self._join()
        await self.accept()
        self._following = asyncio.create_task(self._follow())

    async def _join(self) -> None:
        """Join the sign-up's group. While Redis is unreachable, the socket stays outside and polls the state."""
        try:
            # The layer has no timeout for Redis.
            async with asyncio.timeout(ANSWERS_WITHIN):
                await self.channel_layer.group_add(group_of(self._signup_id), self.channel_name)
        except REDIS_ERRORS as error:
            logger.info("sign-up %s: a socket could not join its group: %r", self._signup_id, error)
        else:
            self._is_member = True

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        self._received += 1
        if text_data is None or len(text_data) > MESSAGE_LENGTH_MAX or self._received > MESSAGES_MAX:
            await self.close(code=POLICY_VIOLATION)

    async def signup_news(self, message: Mapping[str, Any]) -> None:
        """Handle a relay's message: a state, new or repeated, and whether the sign-up is delayed or stalled."""
        self._heard.set()
        await self._show(read_state(message["text"]))
        # Processes of an earlier version don't send it.
        await self._show_slowness(message.get("slowness"))

    async def _follow(self) -> None:
        """Read the state now, and again after each period of silence: a relaying process, a message, or Redis with its
        subscriptions may have been lost."""
        failures = 0
        while not self._is_complete:
            if not self._is_member:
                await self._join()
            try:
                state = await relays().gateway.read_state(self._signup_id)
            except GatewayError as problem:
                logger.info("sign-up %s: the state can't be read: %s", self._signup_id, problem)
                await asyncio.sleep(max(problem.retry_after or 0, reconnect_pause(failures)))
                failures += 1
                continue
            failures = 0
            if state is not None:
                await self._show(state)
                await self._show_slowness("stalled" if state.stalled else None)
            elif self._state is not None and self._state.awaiting:
                # The sign-up has been deleted because it was not confirmed in time.
                self._watch(False)
                await self._say("lapsed", expired=True)
                return
            await self._silence()

    async def _silence(self) -> None:
        """Wait until nothing has been received for SILENT_HEARTBEATS; return soon if messages may have been lost."""
        at_most = SILENT_HEARTBEATS * live.STREAM_HEARTBEAT if self._is_member else AWAY_PAUSE
        with suppress(TimeoutError):
            while not self._must_read:
                self._heard.clear()
                async with asyncio.timeout(at_most):
                    await self._heard.wait()
        self._must_read = False

    def _read_again(self) -> None:
        self._must_read = True
        self._heard.set()

    async def _show(self, state: LightsState) -> None:
        if self._state is not None and state.version <= self._state.version:
            return
        self._state = state
        self._watch(not state.complete)
        await self._say(outcome_of(state, slowness=self._slowness), **json.loads(state.text))

    async def _show_slowness(self, slowness: Slowness | None) -> None:
        """Send "delayed" and "stalled" at most once each, and never "delayed" after "stalled"."""
        if slowness is None or self._state is None or self._is_complete or self._slowness in (slowness, "stalled"):
            return
        self._slowness = slowness
        await self._say(outcome_of(self._state, slowness=slowness), **{slowness: True})

    async def _say(self, outcome: Outcome, **also: Any) -> None:
        with override(self._language):
            message = page_message(self._signup_id, outcome, self._state, **also)
        try:
            await self.send(text_data=json.dumps(message))
        except (RuntimeError, OSError) as gone:
            # The browser has disconnected. The server of `runserver` raises RuntimeError, and the ASGI specification
            # names OSError. The disconnect message, which ends this socket, will follow.
            logger.debug("sign-up %s: a browser has left: %r", self._signup_id, gone)

    @property
    def _is_complete(self) -> bool:
        return self._state is not None and self._state.complete

    async def _leave(self) -> None:
        """Clean up, however the socket ended."""
        if self._following is None:
            return
        self._following.cancel()
        self._watch(False)
        with suppress(*REDIS_ERRORS):
            async with asyncio.timeout(ANSWERS_WITHIN):
                await self.channel_layer.group_discard(group_of(self._signup_id), self.channel_name)

    def _watch(self, wanted: bool) -> None:
        """Ask for the sign-up to be relayed, or withdraw that. A known, incomplete sign-up needs a relay somewhere."""
        if wanted != self._is_watched:
            self._is_watched = wanted
            (relays().watch if wanted else relays().unwatch)(self._signup_id, self._read_again)


async def _send_too_many(scope: Mapping[str, Any], send: Any) -> None:
    """Refuse the handshake. Meanwhile the page polls the state over HTTP, and it reconnects with backoff."""
    if "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": TRY_AGAIN_LATER})
        return
    headers = [(b"retry-after", b"%d" % RETRY_AFTER), (b"cache-control", b"no-store")]
    status = HTTPStatus.TOO_MANY_REQUESTS
    await send({"type": "websocket.http.response.start", "status": status.value, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": b"Too many sockets are open.", "more_body": False})


async def refuse(scope: Any, receive: Any, send: Any) -> None:
    """Refuse a handshake. Channels' WebsocketDenier subscribes to Redis first, and fails if Redis is unreachable."""
    await receive()
    await send({"type": "websocket.close"})


class OwnOrigin:
    """Allows only pages of this origin to open sockets, because browsers send cookies with handshakes from any page. A
    missing Origin is refused too. Scheme and host are compared as in Django's CSRF check."""

    def __init__(self, application: Any) -> None:
        self._application = application

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        application = self._application if _is_own_origin(scope) else refuse
        await application(scope, receive, send)


def _is_own_origin(scope: Mapping[str, Any]) -> bool:
    origin = _header(scope, b"origin") or ""
    if origin in settings.CSRF_TRUSTED_ORIGINS:
        return True
    scheme = "https" if scope.get("scheme") == "wss" else "http"
    handshake = ASGIRequest({**scope, "method": "GET", "scheme": scheme}, BytesIO())
    try:
        return origin == f"{handshake.scheme}://{handshake.get_host()}"
    except DisallowedHost:
        return False


def _header(scope: Mapping[str, Any], name: bytes) -> str | None:
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), None)


websocket_application = OwnOrigin(
    URLRouter(
        [
            path("ws/signup/<str:ticket>/", SignUpSocket.as_asgi()),
            re_path("", cast(Any, refuse)),  # its type stubs accept only views
        ]
    )
)
