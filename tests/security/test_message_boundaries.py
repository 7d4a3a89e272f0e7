"""Requests about whose end two programs could disagree, sent directly to `manage.py serve` and through the gateway
(ASVS 5.0, 4.2.1): one program must never take the other's body for the next request.
"""

import asyncio
import re
from contextlib import suppress

import pytest

from tests.servers import CaddyServer
from tests.servers.process import LOOPBACK
from tests.stack import Stack
from tests.waiting import PATIENCE

HOST = b"Host: 127.0.0.1\r\nContent-Type: application/json\r\n"
# The request whose answer an attacker would want sent to somebody else.
SMUGGLED = b"GET /signup/?smuggled HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
LAST_CHUNK = b"0\r\n\r\n"
# The end of the head and of the body, by one header and by another.
AMBIGUOUS = {
    "a length and chunks": (b"Content-Length: %d\r\n" % (5 + len(SMUGGLED)) + CHUNKED, LAST_CHUNK),
    "chunks and a length": (CHUNKED + b"Content-Length: %d\r\n" % (5 + len(SMUGGLED)), LAST_CHUNK),
    "two lengths": (b"Content-Length: %d\r\nContent-Length: 0\r\n" % len(SMUGGLED), b""),
    "two lengths the other way": (b"Content-Length: 0\r\nContent-Length: %d\r\n" % len(SMUGGLED), b""),
    "two lengths in one": (b"Content-Length: 0, %d\r\n" % len(SMUGGLED), b""),
    "a length with a sign": (b"Content-Length: +0\r\n", b""),
    "a negative length": (b"Content-Length: -1\r\n", b""),
    "a hexadecimal length": (b"Content-Length: 0x10\r\n", b""),
    "a length past any number": (b"Content-Length: 18446744073709551616\r\n", b""),
    "chunks of another spelling": (b"Content-Length: 0\r\nTransfer-Encoding: xchunked\r\n", b""),
    "chunks not at the end": (b"Content-Length: 0\r\nTransfer-Encoding: chunked, identity\r\n", LAST_CHUNK),
    "chunks twice": (CHUNKED + b"Transfer-Encoding: identity\r\n", LAST_CHUNK),
    "a blank before the colon": (b"Content-Length: 0\r\nTransfer-Encoding : chunked\r\n", LAST_CHUNK),
    "a folded header": (b"Content-Length: 0\r\nTransfer-Encoding:\r\n chunked\r\n", LAST_CHUNK),
    "a chunk's size past any number": (CHUNKED, b"10000000000000000\r\n"),
    "a chunk's size with a sign": (CHUNKED, b"-1\r\n"),
    "a chunk without its end": (CHUNKED, b"1\r\nxx\r\n" + LAST_CHUNK),
    "a carriage return alone": (b"X: y\rContent-Length: 0\r\n", b""),
    "a NUL in a header": (b"X: y\x00\r\nContent-Length: 0\r\n", b""),
}


ONE = b"POST /user HTTP/1.1\r\n" + HOST
WHOLE = {"a length": ONE + b"Content-Length: 2\r\n\r\n{}", "chunks": ONE + CHUNKED + b"\r\n2\r\n{}\r\n" + LAST_CHUNK}
# Ends the connection, so that a test need not wait for an answer that never comes.
LAST = b"GET /nowhere/ HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"


async def answers(port: int, sent: bytes) -> list[int]:
    """Return the statuses of all answers on one connection until the server closes it."""
    reader, writer = await asyncio.open_connection(LOOPBACK, port)
    received = b""
    try:
        writer.write(sent + SMUGGLED + LAST)
        async with asyncio.timeout(PATIENCE):
            while piece := await reader.read(65_536):
                received += piece
    except ConnectionResetError:
        pass  # it closed with something unread
    finally:
        writer.close()
    return [int(part[:3]) for part in received.split(b"HTTP/1.1 ")[1:]]


async def answers_to_all(port: int, path: bytes) -> dict[str, list[int]]:
    requests = {
        name: b"POST " + path + b" HTTP/1.1\r\n" + HOST + head + b"\r\n" + body
        for name, (head, body) in AMBIGUOUS.items()
    }
    return dict(zip(requests, await asyncio.gather(*(answers(port, each) for each in requests.values())), strict=True))


@pytest.mark.needs("application")
@pytest.mark.parametrize("path", [b"/user", b"/signup/"])
async def test_a_request_with_two_ends_is_refused_and_the_bytes_after_it_are_not_read(
    stack: Stack, path: bytes
) -> None:
    assert await answers_to_all(stack.roles["web"].port, path) == {name: [400] for name in AMBIGUOUS}


@pytest.mark.needs("application")
@pytest.mark.parametrize("name", WHOLE)
async def test_after_a_request_with_one_end_the_next_one_is_read(stack: Stack, name: str) -> None:
    """Otherwise the test above would pass on a server that reads only one request per connection."""
    assert await answers(stack.roles["web"].port, WHOLE[name]) == [422, 200, 404]


@pytest.mark.needs("caddy")
async def test_the_gateway_passes_on_no_request_with_two_ends() -> None:
    """Whatever it makes of one: Go reads a length beside chunks as chunks, which the standard allows, if nobody behind
    it sees the length."""
    passed_on: list[list[bytes]] = []

    async def keep(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):
            passed_on.append((await reader.readuntil(b"\r\n\r\n")).lower().split(b"\r\n"))
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(keep, LOOPBACK, 0) as behind:
        host, port = behind.sockets[0].getsockname()
        address = f"{host}:{port}"
        gateway = CaddyServer(web=address, auth=[address])
        await asyncio.to_thread(gateway.start)
        try:
            for path in (b"/user", b"/signup/"):
                await answers_to_all(gateway.port, path)
            for each in WHOLE.values():
                assert (await answers(gateway.port, each))[:2] == [200, 200]
        finally:
            await asyncio.to_thread(gateway.close)
    assert any(line == b"get /signup/?smuggled http/1.1" for head in passed_on for line in head)
    for head in passed_on:
        ends = [line for line in head if line.startswith((b"content-length", b"transfer-encoding"))]
        assert len(ends) <= 1, head
        assert all(re.fullmatch(rb"content-length: [0-9]{1,9}|transfer-encoding: chunked", line) for line in ends), head
        assert not any(b"\r" in line or b"\n" in line or b"\x00" in line for line in head), head
