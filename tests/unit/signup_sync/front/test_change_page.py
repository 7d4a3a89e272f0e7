"""Access to the lights of a change."""

from uuid import UUID, uuid4

import pytest
from django.test import AsyncClient

from authsvc import tickets
from authsvc.accounts.change_redirect import CHANGE_COOKIE as SET_BY_AUTH
from authsvc.accounts.change_redirect import lights_path
from signup_sync.front.tickets import CHANGE_COOKIE
from signup_sync.server.request_headers import keep_own_cookies
from tests.unit.signup_sync.front.auth_server import AuthServer

pytestmark = pytest.mark.usefixtures("front")


def test_the_front_and_the_server_know_the_cookie_that_auth_sets():
    assert CHANGE_COOKIE == SET_BY_AUTH
    scope = {"headers": [(b"cookie", f"other=1; {SET_BY_AUTH}=a:b:c".encode())]}
    keep_own_cookies(scope)
    assert scope["headers"] == [(b"cookie", f"{SET_BY_AUTH}=a:b:c".encode())]


async def location(client: AsyncClient, change_id: UUID, ticket: str) -> str:
    client.cookies[CHANGE_COOKIE] = ticket

    class Row:
        id = change_id

    response = await client.get(lights_path(Row))
    return response["Location"]


async def test_the_browser_that_made_the_change_is_led_to_its_lights(client: AsyncClient, auth: AuthServer) -> None:
    change_id = uuid4()
    assert (await location(client, change_id, tickets.issue_ticket(change_id))).startswith("/signup/status/")


@pytest.mark.parametrize("ticket", ["", "forged", "of another"])
async def test_others_have_to_log_in(client: AsyncClient, auth: AuthServer, ticket: str) -> None:
    ticket = tickets.issue_ticket(uuid4()) if ticket == "of another" else ticket
    assert (await location(client, uuid4(), ticket)).startswith("/login/?next=/changes/")
