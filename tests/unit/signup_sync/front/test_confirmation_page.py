"""The front while a sign-up waits for the confirmation of its address: its pages, and the streams that it closes."""

import time
from collections.abc import Callable
from uuid import UUID

import pytest
from channels.testing import WebsocketCommunicator
from django.test import AsyncClient
from pytest_django.fixtures import Settings

from signup_sync.front import sockets, tickets
from signup_sync.front.gateway import LIMIT_OF_PASSWORDS, LINK_EXPIRED, LINK_USED, WRONG_PASSWORD, SubmittedUser
from signup_sync.front.relay_pool import relays
from signup_sync.front.wording import outcomes
from tests.unit.signup_sync.front.auth_server import AuthServer, problem
from tests.unit.signup_sync.front.test_signup_form import open_form, send
from tests.unit.signup_sync.front.test_sockets import connected, state_of, version_after, without_shown
from tests.waiting import eventually_async

pytestmark = pytest.mark.usefixtures("front")
OpenSocket = Callable[..., WebsocketCommunicator]


@pytest.fixture(autouse=True)
def unconfirmed(auth: AuthServer) -> None:
    auth.asks_for_confirmation = True


def token_for(signup_id: UUID, *, age: float = 0) -> str:
    """The token that auth puts into its link (authsvc.signups.confirmation)."""
    return tickets._confirmation_signer.sign(f"{signup_id.hex}-{int((time.time() - age) * 1_000_000)}")


def path_of(token: str) -> str:
    return f"/signup/confirm/{token}/"


async def followed(auth: AuthServer, signup_id: UUID) -> None:
    """Return when the relay holds auth's stream of this sign-up."""

    async def is_followed() -> bool:
        return auth.streams[str(signup_id)] == 1

    await eventually_async(is_followed, what="the shown sign-up is followed")


async def test_the_form_leads_to_the_page_that_says_check_your_email(client: AsyncClient, auth: AuthServer) -> None:
    auth.verdict = None
    began = time.monotonic()
    answer = await send(client, await open_form(client))
    assert answer.status_code == 303
    # It has not waited for a verdict, which never comes.
    assert time.monotonic() - began < 4
    page = (await client.get(answer["Location"])).content.decode()
    assert str(outcomes()["awaiting"]["title"]) in page
    assert page.count('data-status="PENDING"') == 3
    assert '<meta http-equiv="refresh" content="10">' in page


async def test_no_stream_is_held_without_an_open_page(auth: AuthServer, signup_id: UUID, user: SubmittedUser) -> None:
    state = await relays().sign_up(signup_id, user)
    assert state.awaiting == "confirmation"

    async def is_let_go() -> bool:
        return not auth.streams[str(signup_id)] and not relays()._running

    await eventually_async(is_let_go, what="the stream is let go")


async def test_an_open_page_shows_the_confirmation_and_the_lights(
    open_socket: OpenSocket, auth: AuthServer, signup_id: UUID, user: SubmittedUser
) -> None:
    socket = await connected(open_socket())
    await relays().sign_up(signup_id, user)
    assert (await state_of(socket))["awaiting"] == "confirmation"
    await followed(auth, signup_id)
    await auth.confirm(str(signup_id))
    assert "awaiting" not in await version_after(socket, 2)
    # While a page shows the sign-up, it is followed to its end; without a page, it is not.
    await auth.turn(str(signup_id), "chat", "SUCCESS")
    await version_after(socket, 3)


async def test_a_second_post_while_a_page_is_open_is_answered_at_once(
    open_socket: OpenSocket, auth: AuthServer, signup_id: UUID, user: SubmittedUser
) -> None:
    socket = await connected(open_socket())
    await relays().sign_up(signup_id, user)
    await state_of(socket)
    await followed(auth, signup_id)
    began = time.monotonic()
    assert (await relays().sign_up(signup_id, user)).awaiting == "confirmation"
    assert time.monotonic() - began < 4


async def test_a_relay_ends_when_the_last_page_is_closed(
    open_socket: OpenSocket, auth: AuthServer, signup_id: UUID, user: SubmittedUser
) -> None:
    socket = await connected(open_socket())
    await relays().sign_up(signup_id, user)
    await state_of(socket)
    await followed(auth, signup_id)
    await socket.disconnect()
    await auth.say(str(signup_id), b": still here\n\n")

    async def is_let_go() -> bool:
        return auth.streams[str(signup_id)] == 0

    await eventually_async(is_let_go, what="the stream is let go")


async def test_a_page_shows_that_nobody_confirmed_in_time(
    open_socket: OpenSocket,
    auth: AuthServer,
    signup_id: UUID,
    user: SubmittedUser,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings.STREAM_HEARTBEAT = 0.1
    monkeypatch.setattr(sockets, "SILENT_HEARTBEATS", 1)
    socket = await connected(open_socket())
    await relays().sign_up(signup_id, user)
    await state_of(socket)
    # The relay of auth has deleted it; the stream ends at its age.
    del auth.signups[str(signup_id)]
    await auth.drop_streams()
    assert without_shown(await state_of(socket), "lapsed") == {"signupId": str(signup_id), "expired": True}


async def test_the_link_asks_for_the_password_and_confirms_nothing(
    client: AsyncClient, auth: AuthServer, signup_id: UUID, user: SubmittedUser
) -> None:
    await relays().sign_up(signup_id, user)
    answer = await client.get(path_of(token_for(signup_id)))
    assert answer.status_code == 200
    assert (await client.head(path_of(token_for(signup_id)))).status_code == 200
    assert '<form method="post" novalidate>' in answer.content.decode()
    assert 'name="userPw" autocomplete="current-password"' in answer.content.decode()
    assert "no-store" in answer["Cache-Control"]
    for typed in (user.user_id, user.email, user.user_name):
        assert typed not in answer.content.decode()
    assert auth.confirmed == []


async def test_the_password_confirms_and_leads_this_browser_to_the_lights(
    client: AsyncClient, auth: AuthServer, signup_id: UUID, user: SubmittedUser
) -> None:
    await relays().sign_up(signup_id, user)
    token = token_for(signup_id)
    answer = await client.post(path_of(token), {"userPw": user.password})
    assert answer.status_code == 303
    assert auth.confirmed == [(token, user.password)]
    lights = await client.get(answer["Location"])
    assert lights.status_code == 200
    assert 'data-status="SUCCESS"' in lights.content.decode()
    # The ticket is this browser's alone.
    assert (await AsyncClient(headers={"Host": "127.0.0.1"}).get(answer["Location"])).status_code == 404


async def test_a_post_without_the_pages_token_is_refused(auth: AuthServer, signup_id: UUID) -> None:
    strict = AsyncClient(enforce_csrf_checks=True, headers={"Host": "127.0.0.1"})
    assert (await strict.post(path_of(token_for(signup_id)))).status_code == 403
    assert auth.confirmed == []


@pytest.mark.parametrize("method", ["get", "post"])
async def test_an_old_link_is_reported_as_expired_without_asking_auth(
    client: AsyncClient, auth: AuthServer, signup_id: UUID, method: str
) -> None:
    answer = await getattr(client, method)(path_of(token_for(signup_id, age=24 * 3600)))
    assert (answer.status_code, "This link has expired" in answer.content.decode()) == (410, True)
    assert (auth.reads, auth.confirmed) == (0, [])


@pytest.mark.parametrize("method", ["get", "post"])
async def test_a_forged_link_is_not_complete(client: AsyncClient, auth: AuthServer, method: str) -> None:
    for token in ("x", "x:y", tickets.bearer_ticket(tickets.new_signup_id()), "x" * 1000):
        answer = await getattr(client, method)(path_of(token))
        assert (answer.status_code, "This link is incomplete" in answer.content.decode()) == (404, True)
    assert (auth.reads, auth.confirmed) == (0, [])


@pytest.mark.parametrize(
    ("status", "kind", "said", "words"),
    [
        (409, LINK_USED, 410, "Your address is already confirmed"),
        (410, LINK_EXPIRED, 410, "This link has expired"),
        (503, "about:blank", 503, "We cannot confirm your address right now"),
    ],
)
async def test_auths_refusals_are_explained(
    client: AsyncClient, auth: AuthServer, signup_id: UUID, status: int, kind: str, said: int, words: str
) -> None:
    auth.problems.append(problem(status, kind=kind))
    answer = await client.post(path_of(token_for(signup_id)), {"userPw": "pass w0rd 9"})
    assert (answer.status_code, words in answer.content.decode()) == (said, True)


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("", "Enter a password."),
        ("x" * 129, "Use at most 128 characters."),
        ("a\u0300" * 600, "Use at most 128 characters."),
    ],
)
async def test_an_invalid_password_is_not_sent_to_auth(
    client: AsyncClient, auth: AuthServer, signup_id: UUID, typed: str, words: str
) -> None:
    answer = await client.post(path_of(token_for(signup_id)), {"userPw": typed})
    assert (answer.status_code, words in answer.content.decode()) == (422, True)
    assert auth.confirmed == []


async def test_a_wrong_password_is_shown_on_the_field_and_the_page_may_be_sent_again(
    client: AsyncClient, auth: AuthServer, signup_id: UUID, user: SubmittedUser
) -> None:
    await relays().sign_up(signup_id, user)
    path = path_of(token_for(signup_id))
    auth.problems.append(problem(422, kind=WRONG_PASSWORD))
    answer = await client.post(path, {"userPw": "not the passw0rd"})
    page = answer.content.decode()
    assert (answer.status_code, "If you did not sign up, close this page" in page) == (422, True)
    assert "not the passw0rd" not in page
    assert (await client.post(path, {"userPw": user.password})).status_code == 303


async def test_after_too_many_passwords_the_page_says_how_long_to_wait(
    client: AsyncClient, auth: AuthServer, signup_id: UUID
) -> None:
    auth.problems.append(problem(429, kind=LIMIT_OF_PASSWORDS, retry_after="540"))
    answer = await client.post(path_of(token_for(signup_id)), {"userPw": "not the passw0rd"})
    assert (answer.status_code, answer["Retry-After"]) == (429, "540")
    assert "There were too many password attempts for this sign-up. Try again in 9 minutes." in answer.content.decode()


async def test_a_used_link_leads_to_the_login(
    client: AsyncClient, auth: AuthServer, signup_id: UUID, user: SubmittedUser
) -> None:
    await relays().sign_up(signup_id, user)
    await auth.confirm(str(signup_id))
    answer = await client.get(path_of(token_for(signup_id)))
    assert (answer.status_code, "Your address is already confirmed" in answer.content.decode()) == (410, True)


async def test_an_expired_page_explains_how_to_use_the_mail(client: AsyncClient, settings: Settings) -> None:
    answer = await send(client, await open_form(client))
    settings.SIGNUP_CONFIRM = "mail"
    settings.TICKET_MAX_AGE = -1
    assert "open it now" in (await client.get(answer["Location"])).content.decode()
