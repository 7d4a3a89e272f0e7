"""A small HTTP server that keeps auth's contract with the front, controlled by the tests: it counts requests, turns
lights on demand, and answers with problems. tests/integration uses the real auth."""

import asyncio
import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from aiohttp import web
from aiohttp.test_utils import TestServer

SERVICES = ("auth", "chat", "customer")


@dataclass
class SignUp:
    """One sign-up as auth would keep it, or one `change` or `removal` if it has that kind."""

    signup_id: str
    content: dict[str, str]
    kind: str = ""
    version: int = 1
    is_stalled: bool = False
    is_unconfirmed: bool = False
    took: dict[str, int] = field(default_factory=dict)
    services: dict[str, dict[str, str]] = field(
        default_factory=lambda: {service: {"status": "PENDING"} for service in SERVICES}
    )
    said: list[bytes] = field(default_factory=list)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def is_complete(self) -> bool:
        return all(light["status"] != "PENDING" for light in self.services.values())

    @property
    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = {
            **({"signupId": self.signup_id} if not self.kind else {"changeId": self.signup_id, "kind": self.kind}),
            "version": self.version,
            "complete": self.is_complete,
            "services": self.services,
            "took": self.took,
        }
        if self.is_stalled:
            state["stalled"] = True
        if self.is_unconfirmed:
            state["awaiting"] = "confirmation"
        return state

    @property
    def event(self) -> bytes:
        return f"event: status\nid: {self.version}\ndata: {json.dumps(self.state)}\n\n".encode()


class AuthServer:
    """Speaks `POST /user`, the state, the stream and the confirmation. `verdict` is auth's own verdict on each new
    sign-up: None leaves it pending, and `asks_for_confirmation` makes it wait for the confirmation first. Each post is
    answered with the next of `problems`, each GET …/events with the next of `stream_problems`, and nothing is answered
    while `may_answer` is not set.
    """

    def __init__(self) -> None:
        self.signups: dict[str, SignUp] = {}
        self.verdict: dict[str, str] | None = {"status": "SUCCESS"}
        self.problems: list[web.Response] = []
        self.asks_for_confirmation = False
        self.confirmed: list[tuple[str, str]] = []  # tokens and passwords
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.posts: list[tuple[str, dict[str, str]]] = []
        self.addresses: list[str] = []  # the addresses that the front has signed
        self.languages: list[str] = []  # of each post
        self.streams: Counter[str] = Counter()  # open now
        self.stream_problems: list[web.Response] = []
        self.resumed: list[tuple[str, str]] = []  # signup_id and Last-Event-ID of each GET …/events
        self.resumed_at: list[float] = []
        self.reads = 0
        self.connections: set[Any] = set()  # those by which a post arrived
        self._open: set[web.StreamResponse] = set()
        application = web.Application()
        application.router.add_post("/user", self._post)
        application.router.add_post("/user/confirmations", self._confirm)
        application.router.add_get("/user/signups/{id}", self._show)
        application.router.add_get("/user/signups/{id}/events", self._events)
        self._server = TestServer(application)

    async def start(self) -> None:
        await self._server.start_server()

    async def close(self) -> None:
        await self.drop_streams()
        await self._server.close()

    @property
    def url(self) -> str:
        return str(self._server.make_url("")).rstrip("/")

    async def turn(self, signup_id: str, service: str, status: str, reason: str | None = None) -> None:
        """Decide one light, and notify the open streams."""
        signup = self.signups[signup_id]
        signup.services[service] = {"status": status} | ({"reason": reason} if reason else {})
        signup.version += 1
        await self.say(signup_id, signup.event)

    async def say(self, signup_id: str, text: bytes) -> None:
        """Send text on every open stream of the sign-up."""
        signup = self.signups[signup_id]
        async with signup.changed:
            signup.said.append(text)
            signup.changed.notify_all()

    async def drop_streams(self) -> None:
        """Cut the connections of all open streams, as if the process died."""
        for response in list(self._open):
            if response._req is not None and response._req.transport is not None:
                response._req.transport.abort()

    async def _post(self, request: web.Request) -> web.StreamResponse:
        key, content = request.headers["Idempotency-Key"], await request.json()
        self.posts.append((key, content))
        self.connections.add(request.transport)
        self.addresses.append(request.headers.get("Signup-Address", ""))
        self.languages.append(request.headers["Accept-Language"])
        await self.may_answer.wait()
        if self.problems:
            return self.problems.pop(0)
        signup = self.signups.get(key)
        if signup is not None and signup.content != content:
            return problem(409)
        is_new = signup is None
        if signup is None:
            signup = self.signups[key] = SignUp(key, content)
            signup.is_unconfirmed = self.asks_for_confirmation
        begin = [signup.event] if is_new else []
        if is_new and not signup.is_unconfirmed and self.verdict is not None:
            signup.services["auth"] = dict(self.verdict)
            signup.version = 2
        return await self._stream(request, signup, [*begin, *([signup.event] if signup.version > 1 else [])])

    async def confirm(self, signup_id: str) -> None:
        """Confirm the sign-up, as its link does in any browser."""
        self.signups[signup_id].is_unconfirmed = False
        await self.turn(signup_id, "auth", "SUCCESS")

    async def _confirm(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        if self.problems:
            return self.problems.pop(0)
        self.confirmed.append((body["token"], body["userPw"]))
        signup_id = str(UUID(body["token"][:32]))
        await self.confirm(signup_id)
        return web.json_response(self.signups[signup_id].state)

    async def _show(self, request: web.Request) -> web.StreamResponse:
        self.reads += 1
        signup = self._visible(request)
        return web.json_response(signup.state) if signup else problem(404)

    async def _events(self, request: web.Request) -> web.StreamResponse:
        signup = self._visible(request)
        if signup is None:
            return problem(404)
        seen = request.headers.get("Last-Event-ID", "0")
        self.resumed.append((signup.signup_id, seen))
        self.resumed_at.append(asyncio.get_running_loop().time())
        if self.stream_problems:
            return self.stream_problems.pop(0)
        if signup.is_complete and int(seen) == signup.version:
            return web.Response(status=204)
        return await self._stream(request, signup, [signup.event] if signup.version > int(seen) else [])

    def _visible(self, request: web.Request) -> SignUp | None:
        signup_id = request.match_info["id"]
        is_opened = request.headers.get("Signup-Ticket", "").startswith(f"{signup_id}:")
        return self.signups.get(signup_id) if is_opened else None

    async def _stream(self, request: web.Request, signup: SignUp, begin: list[bytes]) -> web.StreamResponse:
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Signup-Ticket": "not for browsers"}
        )
        told = len(signup.said)
        await response.prepare(request)
        self._open.add(response)
        self.streams[signup.signup_id] += 1
        try:
            await response.write(b"retry: 2000\n\n" + b"".join(begin))
            while not signup.is_complete or told < len(signup.said):
                async with signup.changed:
                    while told == len(signup.said):
                        await signup.changed.wait()
                for text in signup.said[told:]:
                    await response.write(text)
                    told += 1
            # The stream ends by itself, as at auth.
            await asyncio.sleep(0.02)
        except ConnectionError:
            pass  # the front has left
        finally:
            self._open.discard(response)
            self.streams[signup.signup_id] -= 1
        return response


def problem(
    status: int, errors: list[dict[str, str]] | None = None, *, kind: str = "about:blank", **headers: str
) -> web.Response:
    """A problem document; `retry_after="3"` becomes a header."""
    return web.Response(
        status=status,
        text=json.dumps({"type": kind, "status": status, "errors": errors or []}),
        content_type="application/problem+json",
        headers={name.replace("_", "-"): value for name, value in headers.items()},
    )
