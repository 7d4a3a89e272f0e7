"""Clients that are slow, silent or large, on real sockets, straight at `manage.py serve` and through the gateway."""

import asyncio
import base64
import json
import socket
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.conftest import new_person
from tests.e2e.test_serve import another_web
from tests.servers import CaddyServer
from tests.servers.process import LOOPBACK, http_status
from tests.stack import RoleProcess, Stack
from tests.waiting import PATIENCE, eventually

pytestmark = [pytest.mark.alone, pytest.mark.needs("application")]

SLOW = 160
# Seconds: short enough for a test, and far enough apart to tell which deadline ended. A busy machine may be late by
# LATE.
HEAD, BODY, IDLE, STALL = 1.0, 3.0, 3, 1.5
LATE = 6.0
HOST = b"Host: 127.0.0.1\r\n"
POST = b"POST %s HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\nContent-Length: 3000\r\n\r\n"
LIVE = b"GET /health/live HTTP/1.1\r\n" + HOST + b"\r\n"
# Of 280 KB: with a hundred of them no buffer of the kernel has room for the answers.
LARGE = b"GET /static/admin/js/vendor/jquery/jquery.js HTTP/1.1\r\n" + HOST + b"\r\n"
HANDSHAKE = (
    b"GET /ws/signup/x/ HTTP/1.1\r\n" + HOST + b"Upgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + base64.b64encode(b"k" * 16) + b"\r\n"
)  # fmt: skip


@pytest.fixture(scope="module")
def web(stack: Stack) -> Iterator[RoleProcess]:
    """A web process whose deadlines a test can wait for."""
    deadlines = {
        "REQUEST_HEAD_TIMEOUT": str(HEAD),
        "REQUEST_BODY_TIMEOUT": str(BODY),
        "CONNECTION_IDLE_TIMEOUT": str(IDLE),
        "RESPONSE_STALL_TIMEOUT": str(STALL),
    }
    with another_web(stack, **deadlines) as role:
        yield role


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(LOOPBACK, port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def trickle(writer: asyncio.StreamWriter, piece: bytes) -> None:
    with suppress(ConnectionError):
        while not writer.is_closing():
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.3)


async def read_to_the_end(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(PATIENCE):
        try:
            return await reader.read()
        except ConnectionResetError:
            return b""


async def ended(port: int, sent: bytes, then: bytes = b"") -> tuple[bytes, float]:
    """Send this, and then a piece at intervals, until the connection ends. Return the answer, and the seconds until the
    end.
    """
    async with connected(port) as (reader, writer):
        began = time.monotonic()
        writer.write(sent)
        slow = asyncio.create_task(trickle(writer, then)) if then else None
        answer = await read_to_the_end(reader)
        if slow:
            slow.cancel()
        return answer, time.monotonic() - began


def status_of(answer: bytes) -> int | None:
    return int(answer.split(b" ", 2)[1]) if answer else None


def posted(port: int) -> int:
    """The status of an ordinary sign-up."""
    connection = HTTPConnection(LOOPBACK, port, timeout=PATIENCE)
    try:
        form = json.dumps(new_person().form)
        connection.request("POST", "/user", body=form, headers={"Content-Type": "application/json"})
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


async def attacked(port: int, paths: Sequence[bytes]) -> tuple[list[tuple[bytes, float]], list[int]]:
    """The ends of 160 slow bodies, and the times of ordinary sign-ups in the meantime."""
    slow = [asyncio.create_task(ended(port, POST % paths[n % len(paths)], then=b"x")) for n in range(SLOW)]
    taken = [await asyncio.to_thread(posted, port)]
    while not all(task.done() for task in slow):
        taken.append(await asyncio.to_thread(posted, port))
    return [task.result() for task in slow], taken


def test_slow_bodies_end_in_time_while_others_sign_up(web: RoleProcess) -> None:
    paths = (b"/user", b"/signup/", b"/signup/check/", b"/admin/login/", b"/login/", b"/nowhere/")
    answers, taken = asyncio.run(attacked(web.port, paths))
    assert {status_of(answer) for answer, _ in answers} == {408}
    assert all(b"connection: close" in answer for answer, _ in answers)
    assert max(seconds for _, seconds in answers) < BODY + LATE
    assert set(taken) == {202}
    assert "Traceback" not in web.log()


async def test_the_api_answers_a_slow_body_with_a_problem_document(web: RoleProcess) -> None:
    answer, _ = await ended(web.port, POST % b"/user")
    head, body = answer.split(b"\r\n\r\n")
    assert b"content-type: application/problem+json" in head
    assert json.loads(body)["status"] == 408


CHUNKED = b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
# The bytes sent at once, those sent at intervals, and the status of the first answer.
UNFINISHED = {
    "a header now and again": (b"GET / HTTP/1.1\r\n" + HOST, b"X: y\r\n", 408),
    "a byte now and again": (b"GET / HTTP/1.1\r\n" + HOST + b"X: ", b"y", 408),
    "one byte": (b"G", b"", 408),
    "a handshake": (HANDSHAKE, b"X: y\r\n", 408),
    "empty lines": (b"\r\n", b"\r\n", 408),
    "a second request": (LIVE + b"GET / HTTP/1.1\r\n", b"X: y\r\n", 200),
    "chunks": (CHUNKED, b"1\r\nx\r\n", 408),
    "trailers": (CHUNKED + b"0\r\n", b"X: y\r\n", 408),
    "after 100 Continue": ((POST % b"/user")[:-2] + b"Expect: 100-continue\r\n\r\n", b"x", 100),
    "a body that nobody reads": (LIVE[:-2] + b"Content-Length: 9\r\n\r\n", b"", 200),
    "nothing": (b"", b"", None),
}


async def test_a_request_that_arrives_too_slowly_ends_the_connection(web: RoleProcess) -> None:
    results = await asyncio.gather(*(ended(web.port, sent, then) for sent, then, _ in UNFINISHED.values()))
    answered = {name: status_of(answer) for name, (answer, _) in zip(UNFINISHED, results, strict=True)}
    assert answered == {name: status for name, (_, _, status) in UNFINISHED.items()}
    assert max(seconds for _, seconds in results) < max(HEAD, BODY, IDLE) + LATE


async def test_a_connection_is_kept_between_requests_for_longer_than_a_head_may_take(web: RoleProcess) -> None:
    async with connected(web.port) as (reader, writer):
        for _ in range(2):
            writer.write(LIVE)
            assert b" 200 " in await reader.readline()
            assert (await reader.readuntil(b"}")).endswith(b"}")
            with pytest.raises(TimeoutError):
                async with asyncio.timeout((HEAD + IDLE) / 2):
                    await reader.read(1)
        writer.write(LIVE)
        assert b" 200 " in await reader.readline()


async def test_a_body_may_take_longer_than_a_head(web: RoleProcess) -> None:
    async with connected(web.port) as (reader, writer):
        writer.write(POST % b"/user")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout((HEAD + BODY) / 2):
                await reader.read(1)
        writer.write(b"{}".ljust(3_000))
        assert status_of(await reader.readline()) == 422


async def outlives_every_deadline(port: int) -> bool:
    """Whether a silent stream and a silent socket stay open."""
    async with connected(port) as (reader, writer):
        form = json.dumps(new_person().form).encode()
        head = POST.replace(b"3000", b"%d") % (b"/user", len(form))
        writer.write(head[:-2] + b"Accept: text/event-stream\r\n\r\n" + form)
        assert status_of(await reader.readline()) == 200
        await reader.readuntil(b'"complete":false')
        with suppress(TimeoutError):
            async with asyncio.timeout(max(HEAD, BODY, IDLE, STALL) + 1):
                while await reader.read(1000):
                    pass
                return False
        return True


async def test_a_held_stream_outlives_every_deadline(stack: Stack, web: RoleProcess) -> None:
    with paused(stack.roles["chat"]):
        assert await outlives_every_deadline(web.port)


@contextmanager
def paused(role: RoleProcess) -> Iterator[None]:
    role.pause()
    try:
        yield
    finally:
        role.resume()


TOO_LARGE = {
    "a header of 64 KB": b"GET / HTTP/1.1\r\n" + HOST + b"X: " + b"y" * 65_536 + b"\r\n\r\n",
    "64 KB of a header without an end": b"GET / HTTP/1.1\r\n" + HOST + b"X: " + b"y" * 65_536,
    "a path of 64 KB": b"GET /" + b"y" * 65_536 + b" HTTP/1.1\r\n" + HOST + b"\r\n",
    "200 headers": b"GET / HTTP/1.1\r\n" + HOST + b"X: y\r\n" * 200 + b"\r\n",
    "a handshake of 64 KB": HANDSHAKE + b"X: " + b"y" * 65_536 + b"\r\n\r\n",
    # The library for sockets has its own limits; uvicorn would hold the connection without an answer.
    "a handshake of 10 KB": HANDSHAKE + b"X: " + b"y" * 10_000 + b"\r\n\r\n",
}


async def test_a_head_that_is_too_large_is_refused(web: RoleProcess) -> None:
    results = await asyncio.gather(*(ended(web.port, sent) for sent in TOO_LARGE.values()))
    answered = {name: status_of(answer) for name, (answer, _) in zip(TOO_LARGE, results, strict=True)}
    assert answered == dict.fromkeys(TOO_LARGE, 431)
    assert "Traceback" not in web.log()


@pytest.mark.parametrize("path", [b"/user", b"/signup/", b"/nowhere/"])
async def test_a_body_without_an_end_is_refused(web: RoleProcess, path: bytes) -> None:
    head = b"POST " + path + b" HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
    answer, seconds = await ended(web.port, head, then=b"%x\r\n%s\r\n" % (2_000_000, b"x" * 2_000_000))
    assert status_of(answer) in (None, 413)
    assert seconds < BODY + LATE


def test_a_connection_whose_client_does_not_read_is_closed(web: RoleProcess) -> None:
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        before = sockets_of(web)
        client.connect((LOOPBACK, web.port))
        client.sendall(LARGE * 100)
        held = eventually(lambda: sockets_of(web) - before, what="the server has this client")
        eventually(lambda: not held & sockets_of(web), STALL + LATE, what="the server gives this client up")


def sockets_of(role: RoleProcess) -> set[str]:
    """The number of open sockets of a process, which only Linux reports."""
    links = set()
    for file in Path(f"/proc/{role.pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            links.add(str(file.readlink()))
    return {link for link in links if link.startswith("socket:")}


def test_others_are_served_when_clients_hold_all_the_connections_they_can(stack: Stack) -> None:
    files = 350
    code = (
        f"import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_NOFILE, ({files}, {files}));"
        "sys.argv = ['manage.py', 'serve', '--port', '{port}']; runpy.run_path('manage.py', run_name='__main__')"
    )
    with another_web(stack, "-c", code, CONNECTION_IDLE_TIMEOUT="1") as few:
        held = [socket.create_connection((LOOPBACK, few.port)) for _ in range(2 * files)]
        try:
            eventually(lambda: http_status(few.port, "/health/ready") == 200, what="idle connections are given up")
            assert posted(few.port) == 202
        finally:
            for each in held:
                each.close()
        assert "Too many open files" not in few.log()


# --- Through the gateway


class ImpatientCaddy(CaddyServer):
    def process_env(self) -> dict[str, str]:
        return super().process_env() | {"GATEWAY_READ_HEADER": f"{HEAD}s", "GATEWAY_READ_BODY": f"{BODY}s"}


@pytest.fixture(scope="module")
def gateway(stack: Stack) -> Iterator[CaddyServer]:
    """A gateway in front of web processes with longer deadlines."""
    web = f"{LOOPBACK}:{stack.roles['web'].port}"
    auth = [f"{LOOPBACK}:{stack.roles[name].port}" for name in ("auth-1", "auth-2")]
    with ImpatientCaddy(web=web, auth=auth) as caddy:
        yield caddy


@pytest.mark.needs("caddy")
def test_slow_bodies_end_in_time_at_the_gateway_as_well(gateway: CaddyServer) -> None:
    answers, taken = asyncio.run(attacked(gateway.port, (b"/user", b"/signup/", b"/admin/login/")))
    assert {status_of(answer) for answer, _ in answers} <= {408, 499, None}
    assert max(seconds for _, seconds in answers) < BODY + LATE
    assert set(taken) == {202}


@pytest.mark.needs("caddy")
async def test_slow_heads_and_silence_end_in_time_at_the_gateway_as_well(gateway: CaddyServer) -> None:
    attacks = {name: attack for name, attack in UNFINISHED.items() if name not in ("a body that nobody reads",)}
    results = await asyncio.gather(*(ended(gateway.port, sent, then) for sent, then, _ in attacks.values()))
    assert max(seconds for _, seconds in results) < max(HEAD, BODY) + LATE


@pytest.mark.needs("caddy")
async def test_a_held_stream_outlives_the_gateways_deadlines(stack: Stack, gateway: CaddyServer) -> None:
    with paused(stack.roles["chat"]):
        assert await outlives_every_deadline(gateway.port)


@pytest.mark.needs("caddy")
@pytest.mark.parametrize(
    "path", ["/health/ready", "/health/live", "/health/", "//health/ready", "/%68ealth/ready", "/metrics"]
)
def test_health_and_metrics_are_not_served_through_the_gateway(stack: Stack, path: str) -> None:
    assert http_status(urlsplit(stack.base_url).port, path) == 404


@pytest.mark.parametrize("path", ["/health/ready", "/health/live", "/metrics"])
@pytest.mark.parametrize("name", ["X-Forwarded-For", "Forwarded", "Via", "X-Real-IP"])
def test_the_process_serves_health_and_metrics_to_no_proxy(stack: Stack, path: str, name: str) -> None:
    """Another gateway may lack this rule."""
    port = stack.roles["web"].port
    assert http_status(port, path) == 200
    connection = HTTPConnection(LOOPBACK, port, timeout=PATIENCE)
    with closing(connection):
        connection.request("GET", path, headers={name: "192.0.2.1"})
        assert connection.getresponse().status == 404
