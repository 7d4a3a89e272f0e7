"""deploy/Caddyfile in a real Caddy, with upstreams that report their name and the requests that they received."""

import asyncio
import json
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from tests.servers import CaddyServer, free_port
from tests.waiting import eventually_async

TICKET = "0199aa00-ticket:1vMpQx:nobody-may-read-this"
# Bytes that the gateway lets through to auth, to the administration, and to the pages.
LIMITS = {"/user": 65_536, "/admin/login/": 65_536, "/signup/": 32_768, "/login/": 32_768}

pytestmark = pytest.mark.needs("caddy")


class Upstream:
    """A stand-in for a web process or an instance of auth."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.address = f"127.0.0.1:{free_port()}"
        self.requests: list[str] = []
        self.forwarded_for: list[list[str]] = []
        self.go_on = asyncio.Event()
        self.streams = 0
        app = web.Application(client_max_size=4 * 1_000_000)
        app.router.add_get("/user/signups/{id}/events", self._stream)
        app.router.add_post("/user/breaks", self._break)
        app.router.add_get("/ws/{path:.*}", self._echo)
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        host, port = self.address.split(":")
        await web.TCPSite(self._runner, host, int(port)).start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.leave()

    async def leave(self) -> None:
        """End it: connections to it are refused from now on."""
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.requests.append(request.path)
        self.forwarded_for.append(request.headers.getall("X-Forwarded-For"))
        headers = {
            "Signup-Ticket": TICKET,
            "Set-Cookie": f"signup_browser={TICKET}",
            "Location": f"/signup/status/{TICKET}/",
        }
        return web.json_response({"from": self.name, "bytes": len(body)}, headers=headers)

    async def _break(self, request: web.Request) -> web.Response:
        await request.read()
        self.requests.append(request.path)
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"id: 1\n\n")
        self.streams += 1
        try:
            await self.go_on.wait()
            await response.write(b"id: 2\n\n")
        finally:
            self.streams -= 1
        return response

    async def _echo(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(message.data)
        return socket


class DiscoveringCaddy(CaddyServer):
    """Finds auth by name, as in compose.yaml."""

    def process_env(self) -> dict[str, str]:
        host, port = self.auth[0].split(":")
        assert host == "127.0.0.1"
        return super().process_env() | {"AUTH_DISCOVERY": "dns", "AUTH_HOST": "localhost", "AUTH_PORT": port}


@asynccontextmanager
async def gateway(
    *, web: Upstream, auth: list[Upstream], kind: type[CaddyServer] = CaddyServer
) -> AsyncIterator[CaddyServer]:
    caddy = kind(web=web.address, auth=[one.address for one in auth])
    try:
        # The readiness check needs an upstream, which runs on this event loop.
        await asyncio.to_thread(caddy.start)
        yield caddy
    finally:
        caddy.close()


@pytest.fixture
async def upstreams() -> AsyncIterator[tuple[Upstream, Upstream, Upstream]]:
    async with Upstream("web") as front, Upstream("first") as first, Upstream("second") as second:
        yield front, first, second


@pytest.fixture
async def caddy(upstreams: tuple[Upstream, Upstream, Upstream]) -> AsyncIterator[CaddyServer]:
    front, *auth = upstreams
    async with gateway(web=front, auth=auth) as running:
        yield running


@pytest.fixture
async def client(caddy: CaddyServer) -> AsyncIterator[aiohttp.ClientSession]:
    # A connection for each request, so that connections that Caddy closes (after a refused body or at a reload) don't
    # matter.
    connector = aiohttp.TCPConnector(force_close=True)
    async with aiohttp.ClientSession(f"http://{caddy.address}", connector=connector) as session:
        yield session


async def answered_by(client: aiohttp.ClientSession, path: str, times: int) -> Counter[str]:
    """Post this many times, and return how often each instance answered."""
    names: Counter[str] = Counter()
    for _ in range(times):
        async with client.post(path, data=b"x" * 1000) as response:
            assert response.status == 200, await response.text()
            answer = await response.json()
            assert answer["bytes"] == 1000
            names[answer["from"]] += 1
    return names


async def test_instances_of_auth_take_turns_and_the_rest_goes_to_web(client):
    assert await answered_by(client, "/user", times=6) == {"first": 3, "second": 3}
    assert await answered_by(client, "/user/signups/1", times=2) == {"first": 1, "second": 1}
    for path in ("/signup/", "/users", "/admin/", "/userx/y"):
        assert await answered_by(client, path, times=1) == {"web": 1}


@pytest.mark.parametrize("path", ["/signup/", "/user"])
@pytest.mark.parametrize(
    ("says", "believed"),
    [
        ({"X-Forwarded-For": "203.0.113.9"}, "203.0.113.9"),
        # The address that a client claims is listed before the one that the proxy saw.
        ({"X-Forwarded-For": "192.168.0.7, 203.0.113.9"}, "203.0.113.9"),
        ({"X-Forwarded-For": "203.0.113.9, 192.168.0.7"}, "192.168.0.7"),
        ({"X-Forwarded-For": "2001:db8::7"}, "2001:db8::7"),
        ({}, "127.0.0.1"),
        ({"X-Forwarded-For": "nonsense"}, "127.0.0.1"),
    ],
)
async def test_the_gateway_passes_on_only_the_address_that_it_trusts(client, upstreams, path, says, believed):
    """So the roles need to trust only the gateway, not the proxies in front of it."""
    async with client.get(path, headers=says) as response:
        assert response.status == 200
    assert [seen for upstream in upstreams for seen in upstream.forwarded_for] == [[believed]]


async def test_first_event_arrives_while_the_stream_is_open(client, upstreams):
    async with client.get("/user/signups/1/events", headers={"Accept-Encoding": "gzip, br"}) as response:
        assert await response.content.readuntil(b"\n\n") == b"id: 1\n\n"
        assert "Content-Encoding" not in response.headers
        for upstream in upstreams:
            upstream.go_on.set()
        assert await response.content.read() == b"id: 2\n\n"


async def test_the_gateway_ends_the_upstream_stream_of_a_client_that_leaves(client, upstreams):
    async with client.get("/user/signups/1/events") as response:
        assert await response.content.readuntil(b"\n\n") == b"id: 1\n\n"
        assert sum(upstream.streams for upstream in upstreams) == 1

    async def nobody_streams() -> bool:
        return not any(upstream.streams for upstream in upstreams)

    await eventually_async(nobody_streams, what="the instance sees its reader leave")


async def test_clients_do_not_notice_an_instance_that_is_down(client, upstreams):
    _, first, _ = upstreams
    await first.leave()

    assert await answered_by(client, "/user", times=6) == {"second": 6}


async def test_a_post_that_was_sent_is_not_repeated(client, upstreams):
    _, first, second = upstreams

    async with client.post("/user/breaks", data=b"{}") as response:
        assert response.status == 502
        assert response.headers["Retry-After"] == "2"
        assert response.content_type == "application/problem+json"
        assert (await response.json(content_type=None))["status"] == 502

    assert first.requests + second.requests == ["/user/breaks"]


async def test_a_body_that_is_too_large_is_refused_and_takes_no_instance_out_of_rotation(client, caddy):
    for _ in range(4):
        answer = await upload(caddy, "/user", LIMITS["/user"] + 1)
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert b"Content-Type: application/problem+json" in answer
        assert b'"status": 413' in answer

    assert await answered_by(client, "/user", times=4) == {"first": 2, "second": 2}


@pytest.mark.parametrize("path", LIMITS)
async def test_a_form_of_the_largest_valid_size_is_accepted(client, caddy, path):
    async with client.post(path, data=b"x" * LIMITS[path]) as response:
        assert (await response.json())["bytes"] == LIMITS[path]
    for answer in (await upload(caddy, path, LIMITS[path] + 1), await upload(caddy, path, 10 * LIMITS[path])):
        assert answer.startswith(b"HTTP/1.1 413 ")


async def upload(caddy: CaddyServer, path: str, size: int) -> bytes:
    """Return the answer to a body without a Content-Length. (aiohttp's client reads no answer while it writes.)"""
    reader, writer = await asyncio.open_connection("127.0.0.1", caddy.port)
    writer.write(f"POST {path} HTTP/1.1\r\nHost: {caddy.address}\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
    writer.write(b"%x\r\n%s\r\n0\r\n\r\n" % (size, b"x" * size))
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        return head + (await reader.readuntil(b"}") if path == "/user" else b"")
    finally:
        writer.close()


async def test_without_an_upstream_the_api_answers_a_problem_document_and_pages_a_sentence(upstreams):
    front, first, second = upstreams
    async with (
        gateway(web=front, auth=[first, second]) as caddy,
        aiohttp.ClientSession(f"http://{caddy.address}") as client,
    ):
        for upstream in upstreams:
            await upstream.leave()
        async with client.post("/user", data=b"{}") as response:
            assert response.status == 503
            assert response.headers["Retry-After"] == "2"
            assert response.content_type == "application/problem+json"
            assert (await response.json(content_type=None))["status"] == 503
        async with client.get("/signup/") as response:
            assert response.status == 503
            assert "Try again" in await response.text()


async def test_the_gateway_serves_no_metrics(client, caddy, upstreams):
    for path in ("/metrics", "//metrics", "/%6Detrics", "/METRICS", "/metrics/"):
        async with client.get(URL(f"http://{caddy.address}{path}", encoded=True)) as response:
            assert response.status == 404, path
    assert [upstream.requests for upstream in upstreams] == [[], [], []]


async def test_sockets_and_streams_outlive_a_reload(client, caddy, upstreams):
    async with (
        client.ws_connect(f"/ws/signup/{TICKET}/") as socket,
        client.get("/user/signups/1/events") as stream,
    ):
        assert await stream.content.readuntil(b"\n\n") == b"id: 1\n\n"
        caddy.process.signal(signal.SIGUSR1)
        await eventually_async(lambda: asyncio.to_thread(lambda: "successfully reloaded" in caddy.process.log()))

        await socket.send_str("still there?")
        assert await socket.receive_str(timeout=5) == "still there?"
        for upstream in upstreams:
            upstream.go_on.set()
        assert await stream.content.read() == b"id: 2\n\n"
        assert await answered_by(client, "/user", times=2) == {"first": 1, "second": 1}


async def test_the_log_contains_no_ticket(client, caddy, upstreams):
    secrets = {
        "Signup-Ticket": TICKET,
        "Authorization": f"Bearer {TICKET}",
        "Referer": f"http://x/signup/status/{TICKET}/",
    }
    async with client.ws_connect(f"/ws/signup/{TICKET}/", headers={"Cookie": f"signup_browser={TICKET}"}):
        pass
    async with client.get(f"/signup/status/{TICKET}/", headers=secrets) as response:
        assert response.status == 200
    # A failure is logged as an error, with the request.
    await upstreams[0].leave()
    async with client.get(f"/signup/status/{TICKET}/", headers=secrets) as response:
        assert response.status == 503

    def lines() -> list[dict[str, object]]:
        return [line for line in map(json.loads, caddy.process.log().splitlines()) if "request" in line]

    async def logged() -> bool:
        return sum("[redacted]" in json.dumps(line["request"]) for line in lines()) >= 3

    await eventually_async(logged, what="the log has the three requests")
    assert {line["level"] for line in lines()} == {"info", "error"}
    assert TICKET not in caddy.process.log()


# A signed ticket, and the tokens of links that confirm an address and reset a password, in their real forms.
SIGNATURE = "kPq3vT0yZ1-aB2cD3eF4gH5iJ6kL7mN8oP9qR0sT1_u"
TOKENS = (f"0199aa00-0000-7000-8000-000000000000:1vMpQx:{SIGNATURE}", "cy1x2z-0123456789abcdef0123456789abcdef")
ODD_TARGETS = [
    "/ws/signup/{}/",
    "/ws//signup/{}/",
    "//ws/signup///{}",
    "/WS/SignUp/{}/",
    "/%77s/signup/{}/",
    "/ws%2Fsignup%2F{}/",
    "/ws/./signup/{}/",
    "/x/../signup/status/{}/",
    "/signup/confirm/{}",
    "/SIGNUP/CONFIRM/{}/",
    "/signup/confirm/x{}y/",
    "/signup/confirm/{};a=b/",
    "/password/MQ/{}/",
    "/%70assword/MQ/{}/",
    "/password/MQ//{}/",
    "/login/?next=/signup/status/{}/",
    "/login/?next=%2Fsignup%2Fstatus%2F{}",
    "/?{}",
    "/??x/{}/",
    "http://127.0.0.1/signup/status/{}/",
    "/elsewhere/{}",
]


async def test_no_spelling_of_an_address_brings_a_ticket_into_the_log(caddy):
    plain = ["/static/front/site.css", "/user/signups/0199aa00-0000-7000-8000-000000000000", "/admin/authsvc/user/1/"]
    coded = [*TOKENS, TOKENS[0].replace(":", "%3a"), TOKENS[1].replace("-", "%2D")]
    targets = [target.format(token) for target in ODD_TARGETS for token in coded]
    for target in [*targets, *plain]:
        reader, writer = await asyncio.open_connection("127.0.0.1", caddy.port)
        writer.write(f"GET {target} HTTP/1.1\r\nHost: {caddy.address}\r\nConnection: close\r\n\r\n".encode())
        assert (await reader.readline()).startswith(b"HTTP/1.1 ")
        writer.close()

    def logged() -> list[str]:
        lines = [json.loads(line) for line in caddy.process.log().splitlines()]
        return [line["request"]["uri"] for line in lines if line.get("logger", "").startswith("http.log.access")]

    await eventually_async(lambda: asyncio.to_thread(lambda: plain[-1] in logged()))
    assert sum("[redacted]" in uri for uri in logged()) == len(targets)
    assert set(plain) <= set(logged()), "an operator can still read what is no secret"
    for part in (SIGNATURE, SIGNATURE[5:], TOKENS[1][10:]):
        assert part not in caddy.process.log()


async def test_auth_is_found_by_name(upstreams):
    front, first, _ = upstreams
    async with (
        gateway(web=front, auth=[first], kind=DiscoveringCaddy) as caddy,
        aiohttp.ClientSession(f"http://{caddy.address}") as client,
    ):
        assert await answered_by(client, "/user", times=2) == {"first": 2}
        assert await answered_by(client, "/signup/", times=1) == {"web": 1}
