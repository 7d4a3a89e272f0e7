"""The page with the lights over HTTP, without scripts."""

import re
import time
from typing import Any

import pytest
from django.http import HttpResponse
from django.test import AsyncClient
from pytest_django.fixtures import Settings

from signup_sync.front import wording
from tests.servers.process import free_port
from tests.unit.signup_sync.front.auth_server import AuthServer
from tests.unit.signup_sync.front.conftest import HOST
from tests.unit.signup_sync.front.test_signup_form import open_form, send, signup_id_of

pytestmark = pytest.mark.usefixtures("front")


async def status_page(client: AsyncClient, auth: AuthServer, **lights: str) -> HttpResponse:
    ticket = await open_form(client)
    response = await send(client, ticket)
    for service, verdict in lights.items():
        status, _, reason = verdict.partition(" ")
        await auth.turn(str(signup_id_of(client, ticket)), service, status, reason or None)
    return await client.get(response["Location"])


def lights_of(response: HttpResponse) -> dict[str, tuple[str, str]]:
    """Each light's status and its text."""
    found = re.findall(
        r'data-service="(\w+)" data-status="(\w+)".*?class="light-word">([^<]+)<', response.content.decode(), re.DOTALL
    )
    return {service: (status, wording) for service, status, wording in found}


def reload_of(response: HttpResponse) -> str | None:
    found = re.search(r'<meta http-equiv="refresh" content="([^"]+)">', response.content.decode())
    return found and found[1]


async def test_pending_lights_load_themselves_again(client: AsyncClient, auth: AuthServer) -> None:
    response = await status_page(client, auth)
    waiting = ("PENDING", "Waiting for an answer")
    assert lights_of(response) == {"auth": ("SUCCESS", "Ready"), "chat": waiting, "customer": waiting}
    assert reload_of(response) == "2"
    assert "Creating your account" in response.content.decode()


@pytest.mark.parametrize("passed", [6, -86_400], ids=["later", "after the clock was put back"])
async def test_without_a_script_a_delay_is_reported_and_the_page_loads_itself_less_often(
    client: AsyncClient, auth: AuthServer, settings: Settings, monkeypatch: pytest.MonkeyPatch, passed: int
) -> None:
    path = (await send(client, await open_form(client)))["Location"]
    assert abs(passed) > settings.SIGNUP_DEADLINE
    later = time.time() + passed
    monkeypatch.setattr(time, "time", lambda: later)
    response = await client.get(path)
    assert "This is taking longer than usual" in response.content.decode()
    assert 'data-outcome="delayed"' in response.content.decode()
    assert re.search(r'data-action="login" href="/login/">', response.content.decode())
    assert reload_of(response) == "10"
    (signup_id,) = auth.signups
    for service in ("chat", "customer"):
        await auth.turn(signup_id, service, "SUCCESS")
    assert reload_of(await client.get(path)) == "2;url=/login/"


async def test_without_a_script_a_stalled_sign_up_is_reported(client: AsyncClient, auth: AuthServer) -> None:
    path = (await send(client, await open_form(client)))["Location"]
    (signup,) = auth.signups.values()
    signup.is_stalled = True
    response = await client.get(path)
    assert "A service is not responding" in response.content.decode()
    assert 'data-outcome="stalled"' in response.content.decode()
    assert re.search(r'data-action="login" href="/login/">', response.content.decode())
    assert reload_of(response) == "10"


async def test_each_light_shows_its_duration(client: AsyncClient, auth: AuthServer) -> None:
    path = (await send(client, await open_form(client)))["Location"]
    (signup,) = auth.signups.values()
    signup.took = {"auth": 3, "chat": 1260}
    assert re.findall(r'class="light-took">([^<]*)<', (await client.get(path)).content.decode()) == [
        "instantly",
        "1.3 s",
        "",
    ]


@pytest.mark.parametrize(
    ("milliseconds", "said"),
    [
        (None, ""),
        (0, "instantly"),
        (400, "0.4 s"),
        (99_900, "100 s"),
        (130_000, "2.2 min"),
        (10**7, "2.8 h"),
        (10**9, "12 d"),
    ],
)
def test_a_time_is_reported_in_its_unit(milliseconds: int | None, said: str) -> None:
    assert wording.took_of(milliseconds) == said


async def test_a_form_that_was_open_for_long_is_not_delayed_at_once(
    client: AsyncClient, auth: AuthServer, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticket = await open_form(client)
    later = time.time() + settings.SIGNUP_DEADLINE + 1
    monkeypatch.setattr(time, "time", lambda: later)
    response = await client.get((await send(client, ticket))["Location"])
    assert "Creating your account" in response.content.decode()


async def test_when_all_lights_are_green_the_page_leads_to_the_login(client: AsyncClient, auth: AuthServer) -> None:
    response = await status_page(client, auth, chat="SUCCESS", customer="SUCCESS")
    assert reload_of(response) == "2;url=/login/"


@pytest.mark.parametrize("kind", ["change", "removal"])
async def test_a_complete_change_reloads_itself_no_more(client: AsyncClient, auth: AuthServer, kind: str) -> None:
    path = (await send(client, await open_form(client)))["Location"]
    (signup,) = auth.signups.values()
    signup.kind = kind
    assert reload_of(await client.get(path)) == "2"
    signup.services = {service: {"status": "SUCCESS"} for service in signup.services}
    response = await client.get(path)
    assert 'data-outcome="green"' in response.content.decode()
    assert reload_of(response) is None


async def test_a_red_participant_is_named_and_the_next_step_offered(client: AsyncClient, auth: AuthServer) -> None:
    response = await status_page(client, auth, chat="FAIL duplicate: email", customer="SUCCESS")
    assert lights_of(response)["chat"] == ("FAIL", "Already had this email address")
    assert reload_of(response) is None
    page = response.content.decode()
    assert "Chat already had this user" in page
    assert re.search(r'data-action="login" href="/login/">', page)


async def test_a_script_may_ask_for_the_state(client: AsyncClient, auth: AuthServer) -> None:
    ticket = await open_form(client)
    path = f"/signup/status/{ticket}/"
    json = {"Accept": "application/json"}
    assert (await client.get(path, headers=json)).json() == {"state": None, "outcome": "absent"}
    await send(client, ticket)
    assert (await client.get(path, headers=json)).json()["state"]["version"] == 2


async def test_a_script_that_showed_a_sign_up_awaiting_its_confirmation_learns_that_it_is_gone(
    client: AsyncClient,
) -> None:
    path = f"/signup/status/{await open_form(client)}/"
    answer = (await client.get(path, {"shown": "awaiting"}, headers={"Accept": "application/json"})).json()
    assert (answer["outcome"], answer["state"]["shown"]["isOver"]) == ("lapsed", True)
    assert answer["state"]["shown"]["title"] == "The link has expired"


async def test_a_script_gets_what_the_page_shows(client: AsyncClient, auth: AuthServer) -> None:
    page = await status_page(client, auth, chat="FAIL duplicate: email", customer="SUCCESS")
    path = page.request["path"] if isinstance(page.request, dict) else page.request.path
    shown = (await client.get(path, headers={"Accept": "application/json"})).json()["state"]["shown"]
    assert {light["service"]: (light["status"], light["word"]) for light in shown["lights"]} == lights_of(page)
    for name in ("title", "text"):
        assert f">{shown[name]}<" in page.content.decode()


async def test_a_sign_up_that_has_not_arrived_is_waited_for(client: AsyncClient) -> None:
    ticket = await open_form(client)
    response = await client.get(f"/signup/status/{ticket}/")
    assert reload_of(response) == "2"
    assert "on its way" in response.content.decode()
    assert {status for status, _ in lights_of(response).values()} == {"PENDING"}


async def test_the_lights_page_reports_an_unreachable_gateway_and_tries_again(
    client: AsyncClient, settings: Settings
) -> None:
    settings.GATEWAY_URL = f"http://{HOST}:{free_port()}"
    ticket = await open_form(client)
    response = await client.get(f"/signup/status/{ticket}/")
    assert "We cannot check the progress right now" in response.content.decode()
    assert reload_of(response) == "2"


async def test_the_lights_are_shown_to_no_other_browser(client: AsyncClient, auth: AuthServer) -> None:
    path = (await send(client, await open_form(client)))["Location"]
    stranger = AsyncClient(headers={"Host": HOST})
    await open_form(stranger)
    for who in (stranger, AsyncClient(headers={"Host": HOST})):
        response = await who.get(path)
        assert response.status_code == 404
        assert "another browser" in response.content.decode()
        assert "data-service" not in response.content.decode()


@pytest.mark.parametrize("ticket", ["nonsense", "eyJzIjoiMSJ9:1w:x", "<script>", "%00", "a" * 5000])
async def test_a_guessed_ticket_opens_nothing(client: AsyncClient, ticket: str) -> None:
    await open_form(client)
    response = await client.get(f"/signup/status/{ticket}/")
    assert response.status_code == 404
    assert "<script>" not in response.content.decode()
    assert "data-service" not in response.content.decode()


async def test_the_socket_of_an_old_page_is_closed_with_a_reason(
    client: AsyncClient, auth: AuthServer, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = (await send(client, await open_form(client)))["Location"]
    later = time.time() + settings.TICKET_MAX_AGE + 1
    monkeypatch.setattr(time, "time", lambda: later)
    response = await client.get(path)
    assert response.status_code == 403
    assert "This page has expired" in response.content.decode()
    assert 'href="/signup/"' in response.content.decode()


async def test_the_address_of_the_page_is_sent_to_no_other_site(client: AsyncClient, auth: AuthServer) -> None:
    response: Any = await status_page(client, auth)
    assert response["Referrer-Policy"] == "strict-origin"
    assert "default-src 'self'" in response["Content-Security-Policy"]
