"""The effects of live settings on the page: a closed sign-up, explained rate limits, and hidden reasons."""

import pytest
from django.core import signing
from django.test import AsyncClient
from pytest_django.fixtures import Settings

from tests.unit.signup_sync.front.auth_server import AuthServer, problem
from tests.unit.signup_sync.front.test_lights_page import lights_of, status_page
from tests.unit.signup_sync.front.test_signup_form import assert_is_form_again, open_form, send, signup_id_of

pytestmark = pytest.mark.usefixtures("front")


async def test_while_sign_up_is_closed_a_notice_replaces_the_form(client: AsyncClient, settings: Settings) -> None:
    settings.SIGNUP_OPEN = False
    page = (await client.get("/signup/")).content.decode()
    assert "Sign-up is closed" in page
    assert "Sign-up is closed at the moment." in page
    assert "<form" not in page.partition("<main")[2]


async def test_a_form_opened_before_sign_up_closed_shows_a_notice_and_keeps_the_input(
    client: AsyncClient, auth: AuthServer
) -> None:
    ticket = await open_form(client)
    auth.problems = [problem(403, kind="/problems/closed")]
    response = await send(client, ticket)
    assert response.status_code == 403
    assert_is_form_again(response, "Sign-up is closed at the moment.")


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("/problems/limit-address", "There were too many sign-ups from your network just now."),
        ("/problems/limit-user-id", "There were too many sign-ups for this user ID just now."),
        ("/problems/limit-total", "We cannot sign you up right now."),
    ],
)
async def test_a_rate_limit_is_explained_with_the_time_of_the_next_attempt(
    client: AsyncClient, auth: AuthServer, kind: str, words: str
) -> None:
    auth.problems = [problem(429, kind=kind, retry_after="7")] * 1
    response = await send(client, await open_form(client))
    assert (response.status_code, response["Retry-After"]) == (429, "7")
    assert_is_form_again(response, words)
    assert "Try again in 7 seconds." in response.content.decode()


async def test_the_front_sends_auth_the_address_of_its_client(client: AsyncClient, auth: AuthServer) -> None:
    ticket = await open_form(client)
    await send(client, ticket)
    [signed] = auth.addresses
    said = signing.TimestampSigner(salt="signup-address").unsign(signed)
    assert said == f"{signup_id_of(client, ticket)} 127.0.0.1"


async def test_hidden_reasons_are_neither_in_a_light_nor_in_a_text(
    client: AsyncClient, auth: AuthServer, settings: Settings
) -> None:
    settings.SIGNUP_REASONS = False
    response = await status_page(client, auth, chat="FAIL", customer="SUCCESS")
    assert lights_of(response)["chat"] == ("FAIL", "Refused")
    page = response.content.decode()
    assert "Chat refused, so nothing was changed there." in page
    assert "already had" not in page.partition("signup-data")[0].lower()


async def test_with_reasons_hidden_a_refusal_of_auths_points_at_no_field(
    client: AsyncClient, auth: AuthServer, settings: Settings
) -> None:
    settings.SIGNUP_REASONS = False
    auth.verdict = {"status": "FAIL"}
    response = await send(client, await open_form(client), script=True)
    assert response.json()["errors"] == {"": ["This sign-up was refused. Change your details and try again."]}
