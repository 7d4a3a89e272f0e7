"""Client of auth's HTTP API. The front reaches auth only through the gateway."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from http.cookies import SimpleCookie
from typing import Any, Final
from uuid import UUID

import aiohttp
import msgspec
from django.conf import settings

from livesettings.values import live
from runtime.tracing import traceparent
from signup_sync.front.states import LightsState, read_state
from signup_sync.front.tickets import bearer_ticket, signed_address, signed_by_front

logger = logging.getLogger(__name__)

# Seconds after which connecting to the gateway, or reading a state, counts as failed.
CONNECT_TIMEOUT: Final = 5.0
STATE_TIMEOUT: Final = 10.0
# Seconds within which the response to a sign-up must begin: the password may queue for hashing for five, and auth waits
# up to three for its database.
POST_TIMEOUT: Final = 12.0
# A stream that misses this many heartbeats is presumed dead.
MISSED_HEARTBEATS: Final = 3
POST_ATTEMPTS: Final = 2
# Asks auth to include the time that each light took, which is not part of a state by default.
WITH_TIMES: Final[Mapping[str, str]] = {"Prefer": "took"}
# Types of problem documents: sign-ups are closed, a link or its password is wrong, or a rate limit is reached.
CLOSED: Final = "/problems/closed"
LINK_UNKNOWN: Final = "/problems/link-unknown"
LINK_EXPIRED: Final = "/problems/link-expired"
LINK_USED: Final = "/problems/link-used"
WRONG_PASSWORD: Final = "/problems/wrong-password"  # noqa: S105 - a problem's type
LIMIT_OF_PASSWORDS: Final = "/problems/limit-password"
LIMIT_OF_ADDRESS: Final = "/problems/limit-address"
LIMIT_OF_USER_ID: Final = "/problems/limit-user-id"
_LOST_ON_THE_WAY: Final = (HTTPStatus.BAD_GATEWAY, HTTPStatus.GATEWAY_TIMEOUT)


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmittedUser:
    """A user to sign up, with the client's address and the language for error messages. The repr, which may be logged,
    omits the password."""

    user_id: str
    user_name: str
    email: str
    password: str = field(repr=False)
    address: str | None = None
    language: str = "en"

    def as_wire(self) -> dict[str, str]:
        return {
            "userId": self.user_id,
            "userName": self.user_name,
            "email": self.email,
            "userPw": self.password,
        }


class FieldError(msgspec.Struct, frozen=True):
    """One entry of a problem document's `errors`: a JSON Pointer to a field, and the error message."""

    pointer: str
    detail: str


class _ProblemDocument(msgspec.Struct, frozen=True):
    type: str = ""
    errors: list[FieldError] = []


class GatewayError(Exception):
    """The gateway refused the request or is unreachable (503). `kind` is the problem's type; `retry_after` is in
    seconds."""

    def __init__(
        self,
        status: int,
        reason: str,
        *,
        kind: str = "",
        errors: Sequence[FieldError] = (),
        retry_after: int | None = None,
    ) -> None:
        super().__init__(f"{status}: {reason}")
        self.status = status
        self.kind = kind
        self.errors = errors
        self.retry_after = retry_after

    @property
    def may_pass(self) -> bool:
        """Whether the same request may succeed later."""
        return self.status >= HTTPStatus.INTERNAL_SERVER_ERROR or self.status == HTTPStatus.TOO_MANY_REQUESTS


class Gateway:
    """The HTTP client of a process. Create it in the running event loop. The number of open streams is not limited."""

    def __init__(self) -> None:
        self._address = settings.GATEWAY_URL.rstrip("/")
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def close(self) -> None:
        await self._session.close()

    async def post_user(self, signup_id: UUID, user: SubmittedUser) -> aiohttp.ClientResponse:
        """Post a sign-up and return its open stream. Raises GatewayError.

        If the response is lost, the request is sent once more: with the same Idempotency-Key, it joins the first.
        """
        headers = {
            "Accept": "text/event-stream",
            "Accept-Language": user.language,
            **WITH_TIMES,
            "Idempotency-Key": str(signup_id),
            "traceparent": traceparent(signup_id),
        }
        if user.address:
            headers["Signup-Address"] = signed_address(signup_id, user.address)
        silence = MISSED_HEARTBEATS * live.STREAM_HEARTBEAT
        for attempt in range(1, POST_ATTEMPTS + 1):
            try:
                async with asyncio.timeout(POST_TIMEOUT):
                    return await self._request("POST", "/user", headers, silence=silence, json=user.as_wire())
            except TimeoutError:
                problem = _AnswerLostError(HTTPStatus.SERVICE_UNAVAILABLE, f"no response within {POST_TIMEOUT:.0f} s")
                logger.warning("sign-up %s: attempt %d got no response in time", signup_id, attempt)
            except _AnswerLostError as lost:
                logger.warning("sign-up %s: the response to attempt %d was lost: %s", signup_id, attempt, lost)
                problem = lost
        raise problem

    async def open_events(self, signup_id: UUID, *, seen: int) -> aiohttp.ClientResponse | None:
        """Open the stream of the states after version `seen` (0 for all). Return None if `seen` was the last version.

        Raises GatewayError.
        """
        headers = {
            "Accept": "text/event-stream",
            **WITH_TIMES,
            "Last-Event-ID": str(seen),
            "Signup-Ticket": bearer_ticket(signup_id),
            # The client's address is not known here. A signature of the front without an address suffices: auth counts
            # only other clients' streams by address.
            "Signup-Address": signed_address(signup_id, ""),
        }
        silence = MISSED_HEARTBEATS * live.STREAM_HEARTBEAT
        response = await self._request("GET", f"/user/signups/{signup_id}/events", headers, silence=silence)
        if response.status == HTTPStatus.NO_CONTENT:
            response.release()
            return None
        return response

    async def read_state(self, signup_id: UUID) -> LightsState | None:
        """Return the current state, or None if auth doesn't have the sign-up (yet). Raises GatewayError."""
        headers = {**WITH_TIMES, "Signup-Ticket": bearer_ticket(signup_id)}
        return await self._find_state(f"/user/signups/{signup_id}", headers)

    async def may_see_change(self, change_id: UUID, session: str) -> bool:
        """Whether the browser's session lets it see this change or removal. Raises GatewayError."""
        cookie = SimpleCookie({settings.SESSION_COOKIE_NAME: session}).output(header="", sep=";").strip()
        return await self._find_state(f"/user/changes/{change_id}", {"Cookie": cookie}) is not None

    async def confirm(self, token: str, password: str) -> LightsState:
        """Confirm the sign-up of this token with its password. Return its state. Raises GatewayError."""
        body = {"token": token, "userPw": password}
        return await self._ask_for_state("POST", "/user/confirmations", {}, json=body)

    async def _find_state(self, path: str, headers: Mapping[str, str]) -> LightsState | None:
        try:
            return await self._ask_for_state("GET", path, headers)
        except GatewayError as problem:
            if problem.status == HTTPStatus.NOT_FOUND:
                return None
            raise

    async def _ask_for_state(
        self, method: str, path: str, headers: Mapping[str, str], *, json: Any = None
    ) -> LightsState:
        try:
            async with asyncio.timeout(STATE_TIMEOUT):
                response = await self._request(method, path, headers, silence=STATE_TIMEOUT, json=json)
                return read_state(await response.text())
        except (TimeoutError, aiohttp.ClientError, msgspec.MsgspecError) as error:
            raise GatewayError(HTTPStatus.SERVICE_UNAVAILABLE, f"the state can't be read: {error!r}") from error

    async def _request(
        self, method: str, path: str, headers: Mapping[str, str], *, silence: float, json: Any = None
    ) -> aiohttp.ClientResponse:
        headers = {"Signup-Address": signed_by_front(), **headers}
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT, sock_read=silence)
        try:
            response = await self._session.request(
                method, self._address + path, headers=headers, json=json, timeout=timeout, allow_redirects=False
            )
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            # Only these two errors guarantee that nothing was sent.
            raise GatewayError(HTTPStatus.SERVICE_UNAVAILABLE, f"the gateway is unreachable: {error!r}") from error
        except (aiohttp.ClientError, TimeoutError) as error:
            raise _AnswerLostError(HTTPStatus.SERVICE_UNAVAILABLE, f"the response was lost: {error!r}") from error
        if response.status in (HTTPStatus.OK, HTTPStatus.NO_CONTENT):
            return response
        async with response:
            raise await _problem_of(response)


class _AnswerLostError(GatewayError):
    """The response was lost; the request may or may not have been carried out."""


async def _problem_of(response: aiohttp.ClientResponse) -> GatewayError:
    if response.status in _LOST_ON_THE_WAY:
        return _AnswerLostError(response.status, "the gateway lost its connection to auth")
    try:
        document = msgspec.json.decode(await response.read(), type=_ProblemDocument)
    except (aiohttp.ClientError, TimeoutError, msgspec.MsgspecError):
        document = _ProblemDocument()
    wait = response.headers.get("Retry-After", "")
    return GatewayError(
        response.status,
        response.reason or "",
        kind=document.type,
        errors=document.errors,
        retry_after=int(wait) if wait.isdecimal() else None,
    )
