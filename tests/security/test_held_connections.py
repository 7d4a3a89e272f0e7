"""WebSockets and streams are capped for each sign-up and each address."""

import asyncio
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack

import aiohttp
import pytest

from tests.conftest import new_person
from tests.e2e.test_serve import another_web
from tests.servers.process import LOOPBACK
from tests.stack import RoleProcess, Stack
from tests.waiting import PATIENCE, eventually_async

pytestmark = pytest.mark.needs("application")

FLOOD = 400
PER_SIGNUP, PER_ADDRESS = 5, 12
REFUSED = 429


@pytest.fixture(scope="module")
def web(stack: Stack) -> Iterator[RoleProcess]:
    limits = {"HELD_PER_SIGNUP": str(PER_SIGNUP), "HELD_PER_ADDRESS": str(PER_ADDRESS)}
    with another_web(stack, **limits) as role:
        yield role


class Visitor:
    """A browser that has opened the form."""

    def __init__(self, client: aiohttp.ClientSession, origin: str, page: Mapping[str, str]) -> None:
        self._client = client
        self._origin = origin
        self.page = page

    async def open_socket(self, held: AsyncExitStack, **headers: str) -> int:
        """Return 101, or the status of the refusal; negative if the refusal lacks Retry-After."""
        sent = {"Origin": self._origin, **headers}
        try:
            await held.enter_async_context(self._client.ws_connect(self.page["socketPath"], headers=sent))
        except aiohttp.WSServerHandshakeError as refused:
            return refused.status if "Retry-After" in (refused.headers or {}) else -refused.status
        return 101


async def visit(role: RoleProcess, held: AsyncExitStack) -> Visitor:
    origin = f"http://{LOOPBACK}:{role.port}"
    client = await held.enter_async_context(
        aiohttp.ClientSession(
            origin,
            cookie_jar=aiohttp.CookieJar(unsafe=True),
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=PATIENCE),
        )
    )
    async with client.get("/signup/") as response:
        [data] = re.findall(r'id="signup-data" type="application/json">(.*?)</script>', await response.text())
    return Visitor(client, origin, json.loads(data)["page"])


async def test_400_sockets_with_one_ticket_are_capped(web: RoleProcess) -> None:
    async with AsyncExitStack() as held:
        visitor = await visit(web, held)
        # Each comes from another address, so only the ticket's limit counts.
        addresses = [f"198.51.100.{number % 250}" for number in range(FLOOD)]
        statuses = await asyncio.gather(
            *(visitor.open_socket(held, **{"X-Forwarded-For": address}) for address in addresses)
        )
        assert Counter(statuses) == {101: PER_SIGNUP, REFUSED: FLOOD - PER_SIGNUP}
        other = await visit(web, held)
        assert await other.open_socket(held) == 101
    async with AsyncExitStack() as held:
        visitor = await visit(web, held)
        assert await visitor.open_socket(held) == 101
    assert "Traceback" not in web.log()


async def test_a_place_is_free_again_when_a_socket_closes(web: RoleProcess) -> None:
    async with AsyncExitStack() as held:
        visitor = await visit(web, held)
        async with AsyncExitStack() as first:
            assert [await visitor.open_socket(first) for _ in range(PER_SIGNUP)] == [101] * PER_SIGNUP
            assert await visitor.open_socket(held) == REFUSED

        async def is_free() -> bool:
            return await visitor.open_socket(held) == 101

        await eventually_async(is_free, what="the places are free again")


@pytest.mark.parametrize(
    "addresses",
    [
        pytest.param(["203.0.113.7"] * 40, id="IPv4"),
        pytest.param([f"2001:db8:0:1::{number:x}" for number in range(1, 41)], id="a network of IPv6"),
        pytest.param(["203.0.113.8", "::ffff:203.0.113.8"] * 20, id="IPv4 in IPv6"),
    ],
)
async def test_sockets_of_many_tickets_from_one_address_are_capped(web: RoleProcess, addresses: list[str]) -> None:
    async with AsyncExitStack() as held:
        visitors = await asyncio.gather(*(visit(web, held) for _ in addresses))
        pairs = zip(visitors, addresses, strict=True)
        statuses = await asyncio.gather(
            *(visitor.open_socket(held, **{"X-Forwarded-For": address}) for visitor, address in pairs)
        )
        assert Counter(statuses) == {101: PER_ADDRESS, REFUSED: len(addresses) - PER_ADDRESS}
        assert await visitors[0].open_socket(held, **{"X-Forwarded-For": "203.0.113.9"}) == 101


async def test_streams_of_one_sign_up_and_of_one_address_are_capped(stack: Stack, web: RoleProcess) -> None:
    stack.roles["chat"].pause()
    try:
        async with AsyncExitStack() as held:
            client = await held.enter_async_context(
                aiohttp.ClientSession(f"http://{LOOPBACK}:{web.port}", connector=aiohttp.TCPConnector(limit=0))
            )

            async def hold(method: str, path: str, **options: object) -> aiohttp.ClientResponse:
                return await held.enter_async_context(client.request(method, path, **options))

            async def sign_up(address: str) -> aiohttp.ClientResponse:
                headers = {"Accept": "text/event-stream", "X-Forwarded-For": address}
                return await hold("POST", "/user", json=new_person().form, headers=headers)

            first = await sign_up("192.0.2.1")
            assert first.status == 200
            ticket = {"Signup-Ticket": first.headers["Signup-Ticket"]}
            signup_id = ticket["Signup-Ticket"].split(":")[0]
            path = f"/user/signups/{signup_id}/events"
            resumed = [
                await hold("GET", path, headers=ticket | {"X-Forwarded-For": f"192.0.2.{number}"})
                for number in range(2, 12)
            ]
            assert Counter(answer.status for answer in resumed) == {200: PER_SIGNUP - 1, REFUSED: 11 - PER_SIGNUP}
            assert {answer.content_type for answer in resumed if answer.status == REFUSED} == {
                "application/problem+json"
            }
            assert all("Retry-After" in answer.headers for answer in resumed if answer.status == REFUSED)

            posted = [await sign_up("192.0.2.99") for _ in range(PER_ADDRESS + 3)]
            assert Counter(answer.status for answer in posted) == {200: PER_ADDRESS, REFUSED: 3}
            assert (await sign_up("192.0.2.100")).status == 200
    finally:
        stack.roles["chat"].resume()


async def test_the_fronts_streams_are_not_counted_by_its_address(stack: Stack, web: RoleProcess) -> None:
    """The front relays all sign-ups from one address."""
    from django.core import signing

    signer = signing.TimestampSigner(key=stack.env["SECRET_KEY"], salt="signup-address")
    stack.roles["chat"].pause()
    try:
        async with AsyncExitStack() as held:
            client = await held.enter_async_context(
                aiohttp.ClientSession(f"http://{LOOPBACK}:{web.port}", connector=aiohttp.TCPConnector(limit=0))
            )
            statuses = []
            for number in range(PER_ADDRESS + 3):
                signup_id = f"01a218bf-547a-7357-92c1-dadcb15042{number:02x}"
                headers = {
                    "Accept": "text/event-stream",
                    "Idempotency-Key": signup_id,
                    "Signup-Address": signer.sign(f"{signup_id} 192.0.2.{number}"),
                }
                request = client.post("/user", json=new_person().form, headers=headers)
                statuses.append((await held.enter_async_context(request)).status)
            assert set(statuses) == {200}
    finally:
        stack.roles["chat"].resume()
