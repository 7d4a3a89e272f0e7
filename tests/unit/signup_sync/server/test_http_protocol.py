"""Requests that arrive at once on one connection."""

import asyncio
from functools import partial
from typing import Any

import uvicorn
from uvicorn.server import ServerState

from signup_sync.server.http_protocol import Http

REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n%b\r\n"
MANY = 600


async def application(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


async def test_any_number_of_upgrades_at_once_are_ignored() -> None:
    config = uvicorn.Config(application, http=Http, lifespan="off", log_config=None, access_log=False)
    config.load()
    protocol = partial(Http, config=config, server_state=ServerState(), app_state={})
    server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0)
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(REQUEST % b"Connection: Upgrade\r\nUpgrade: h2c\r\n" * MANY)
        writer.write(REQUEST % b"Connection: close\r\n")
        answers = await asyncio.wait_for(reader.read(), 30)
        writer.close()
    assert answers.count(b"HTTP/1.1 200 OK") == MANY + 1
