"""The form over HTTP, with scripts and without. pytest-django keeps these tests from touching a database."""

import asyncio
import html
import logging
import re
import time
from uuid import UUID

import pytest
from django.http import HttpResponse
from django.test import AsyncClient
from pytest_django.fixtures import Settings

from signup_sync.front import tickets
from tests.servers.process import free_port
from tests.unit.signup_sync.front.auth_server import AuthServer, problem
from tests.unit.signup_sync.front.conftest import HOST, PASSWORD

pytestmark = pytest.mark.usefixtures("front")

TYPED = {"userId": "홍길동", "userName": "Hong <b>", "email": "hong@example.org"}
PASSWORDS = {"userPw": PASSWORD, "userPw2": PASSWORD}


async def open_form(client: AsyncClient) -> str:
    """Open the form with this client, and return its ticket."""
    return form_ticket_of(await client.get("/signup/"))


async def send(client: AsyncClient, ticket: str, *, script: bool = False, **changes: str) -> HttpResponse:
    headers = {"Accept": "application/json"} if script else {}
    return await client.post("/signup/", TYPED | PASSWORDS | {"ticket": ticket} | changes, headers=headers)


def signup_id_of(client: AsyncClient, ticket: str) -> UUID:
    browser = tickets.browser_of({name: morsel.value for name, morsel in client.cookies.items()})
    return tickets.open_page_ticket(ticket, browser)


def form_ticket_of(response: HttpResponse) -> str:
    """Return the form's ticket after this answer."""
    if response["Content-Type"] == "application/json":
        return response.json()["formTicket"]
    return re.search(r'name="ticket" value="([^"]+)"', response.content.decode())[1]


def assert_is_form_again(response: HttpResponse, message: str) -> None:
    page = response.content.decode()
    assert message in page
    assert 'value="홍길동"' in page
    assert 'value="Hong &lt;b&gt;"' in page
    assert PASSWORD not in page


async def test_the_form_states_the_rules_and_is_not_cached(client: AsyncClient) -> None:
    response = await client.get("/signup/")
    page = response.content.decode()
    for words in ("2 to 32 characters", "한글", ". _ -", "No spaces or emoji"):
        assert words in page
    for name in ("userId", "userName", "email", "userPw", "userPw2"):
        assert f'name="{name}"' in page
    cookie = response.cookies[tickets.BROWSER_COOKIE]
    assert (cookie["httponly"], cookie["samesite"], cookie["secure"]) == (True, "Lax", "")
    assert "no-store" in response["Cache-Control"]
    assert "<script>" not in page
    assert " style=" not in page


async def test_the_cookie_is_for_https_alone_in_production(client: AsyncClient, settings: Settings) -> None:
    settings.PRODUCTION = True
    assert (await client.get("/signup/")).cookies[tickets.BROWSER_COOKIE]["secure"]


async def test_a_browser_keeps_its_cookie(client: AsyncClient) -> None:
    await client.get("/signup/")
    assert tickets.BROWSER_COOKIE not in (await client.get("/signup/")).cookies


async def test_without_a_script_it_redirects_to_the_lights(client: AsyncClient, auth: AuthServer) -> None:
    ticket = await open_form(client)
    response = await send(client, ticket)
    assert response.status_code == 303
    assert re.fullmatch(r"/signup/status/[\w:-]+/", response["Location"])
    ((key, content),) = auth.posts
    assert UUID(key) == signup_id_of(client, ticket)
    assert content == TYPED | {"userPw": PASSWORD}
    lights = await client.get(response["Location"])
    assert lights.status_code == 200
    assert PASSWORD not in lights.content.decode()


async def test_a_script_gets_the_path_of_the_lights_as_json(client: AsyncClient, auth: AuthServer) -> None:
    ticket = await open_form(client)
    answer = (await send(client, ticket, script=True)).json()
    assert answer["signupId"] == str(signup_id_of(client, ticket)) == str(signup_id_of(client, answer["ticket"]))
    assert answer["socketPath"] == f"/ws/signup/{answer['ticket']}/"
    assert answer["statusPath"] == f"/signup/status/{answer['ticket']}/"
    assert answer["state"]["services"]["auth"] == {"status": "SUCCESS"}


@pytest.mark.parametrize(
    ("reason", "field", "message"),
    [("duplicate: userId", "userId", "This user ID is taken"), ("duplicate: email", "email", "address already exists")],
)
async def test_a_refusal_brings_the_form_back_with_the_message_on_its_field(
    client: AsyncClient, auth: AuthServer, reason: str, field: str, message: str
) -> None:
    auth.verdict = {"status": "FAIL", "reason": reason}
    ticket = await open_form(client)
    response = await send(client, ticket)
    assert response.status_code == 422
    assert_is_form_again(response, message)
    assert re.search(rf'id="id_{field}_error">[^<]*{message}', response.content.decode())
    answer = await send(client, ticket, script=True)
    assert (answer.status_code, list(answer.json()["errors"])) == (422, [field])


async def test_a_form_that_is_invalid_is_not_posted(client: AsyncClient, auth: AuthServer) -> None:
    ticket = await open_form(client)
    response = await send(client, ticket, userPw2="something else", email="nobody")
    assert response.status_code == 422
    assert_is_form_again(response, "The two passwords do not match")
    assert auth.posts == []
    answer = (await send(client, ticket, script=True, userPw2="something else")).json()
    assert list(answer["errors"]) == ["userPw2"]
    assert signup_id_of(client, answer["formTicket"]) == signup_id_of(client, ticket)


async def test_auths_messages_are_shown_at_the_fields(client: AsyncClient, auth: AuthServer) -> None:
    errors = [{"pointer": "/userId", "detail": "No emoji."}, {"pointer": "/role", "detail": "No role."}]
    auth.problems = [problem(422, errors), problem(422, errors)]
    ticket = await open_form(client)
    response = await send(client, ticket)
    assert response.status_code == 422
    assert_is_form_again(response, "No emoji.")
    answer = (await send(client, ticket, script=True)).json()
    assert answer["errors"] == {"userId": ["No emoji."], "": ["No role."]}


async def test_the_form_sent_again_joins_its_sign_up(client: AsyncClient, auth: AuthServer) -> None:
    ticket = await open_form(client)
    first, second = await asyncio.gather(send(client, ticket), send(client, ticket))
    assert (first.status_code, second.status_code) == (303, 303)
    assert list(auth.signups) == [str(signup_id_of(client, ticket))]


async def test_the_form_with_other_content_is_another_sign_up(client: AsyncClient, auth: AuthServer) -> None:
    ticket = await open_form(client)
    await send(client, ticket)
    answer = (await send(client, ticket, script=True, userId="somebody-else")).json()
    assert list(auth.signups) == [str(signup_id_of(client, ticket)), answer["signupId"]]
    assert answer["signupId"] == str(signup_id_of(client, answer["ticket"]))


@pytest.mark.parametrize("script", [False, True])
async def test_a_corrected_form_sent_again_joins_its_sign_up(
    client: AsyncClient, auth: AuthServer, *, script: bool
) -> None:
    auth.verdict = {"status": "FAIL", "reason": "duplicate: userId"}
    ticket = await open_form(client)
    refused = await send(client, ticket, script=script)
    assert refused.status_code == 422
    auth.verdict = {"status": "SUCCESS"}
    again = form_ticket_of(refused)
    at_once = await asyncio.gather(*(send(client, again, script=script, userId="corrected") for _ in range(2)))
    later = await send(client, again, script=script, userId="corrected")
    assert [answer.status_code for answer in (*at_once, later)] == [200 if script else 303] * 3
    assert [signup.content["userId"] for signup in auth.signups.values()] == ["홍길동", "corrected"]


async def test_the_same_content_always_joins_its_own_sign_up_whatever_was_submitted_since(
    client: AsyncClient, auth: AuthServer
) -> None:
    ticket = await open_form(client)
    contents = ["one", "two", "three", "one", "two", "three", "one"]
    found: dict[str, set[str]] = {}
    for user_id in contents:
        answer = (await send(client, ticket, script=True, userId=user_id)).json()
        found.setdefault(user_id, set()).add(answer["signupId"])
        ticket = answer["formTicket"]
    assert [len(ids) for ids in found.values()] == [1, 1, 1]
    assert len(auth.signups) == 3


async def test_a_form_with_too_many_contents_must_be_reloaded(client: AsyncClient, auth: AuthServer) -> None:
    ticket = await open_form(client)
    for number in range(tickets.CONTENTS_MAX):
        assert (await send(client, ticket, userId=f"user-{number}")).status_code == 303
    response = await send(client, ticket)
    assert response.status_code == 409
    assert_is_form_again(response, "open the sign-up page again")
    assert len(auth.signups) == tickets.CONTENTS_MAX


async def test_the_corrected_sign_up_is_kept_when_its_answer_is_lost(client: AsyncClient, auth: AuthServer) -> None:
    auth.problems = [problem(409), problem(503)]
    ticket = await open_form(client)
    failed = (await send(client, ticket, script=True)).json()
    auth.problems = [problem(409)]
    answer = (await send(client, failed["formTicket"], script=True)).json()
    assert answer["signupId"] == failed["signupId"]
    assert [key for key, _ in auth.posts] == [str(signup_id_of(client, ticket)), answer["signupId"]] * 2


@pytest.mark.parametrize("status", [503, 429])
async def test_while_auth_is_busy_the_page_gives_the_time_of_the_next_attempt(
    client: AsyncClient, auth: AuthServer, status: int
) -> None:
    auth.problems = [problem(status, Retry_After="7")]
    ticket = await open_form(client)
    response = await send(client, ticket)
    assert (response.status_code, response["Retry-After"]) == (status, "7")
    assert_is_form_again(response, "Try again in 7 seconds.")
    assert (await send(client, form_ticket_of(response))).status_code == 303
    assert {key for key, _ in auth.posts} == {str(signup_id_of(client, ticket))}


async def test_a_gateway_that_is_down_loses_nothing(
    client: AsyncClient, auth: AuthServer, settings: Settings, front: None
) -> None:
    settings.GATEWAY_URL = f"http://{HOST}:{free_port()}"
    ticket = await open_form(client)
    response = await send(client, ticket)
    assert response.status_code == 503
    assert_is_form_again(response, "We cannot sign you up right now")


async def test_a_ticket_of_another_browser_posts_a_sign_up_of_its_own(client: AsyncClient, auth: AuthServer) -> None:
    stranger = await open_form(AsyncClient(headers={"Host": HOST}))
    await open_form(client)
    for ticket in (stranger, "nonsense", ""):
        assert (await send(client, ticket)).status_code == 303
    assert len(auth.signups) == 3


async def test_a_form_of_another_browser_sent_again_joins_its_sign_up(client: AsyncClient, auth: AuthServer) -> None:
    stranger = await open_form(AsyncClient(headers={"Host": HOST}))
    await open_form(client)
    auth.problems = [problem(503)]
    failed = await send(client, stranger, script=True)
    await asyncio.gather(*(send(client, form_ticket_of(failed)) for _ in range(2)))
    assert list(auth.signups) == [failed.json()["signupId"]]


async def test_a_form_that_was_left_open_for_hours_still_posts(
    client: AsyncClient, auth: AuthServer, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticket = await open_form(client)
    expected = signup_id_of(client, ticket)
    later = time.time() + settings.TICKET_MAX_AGE + 1
    monkeypatch.setattr(time, "time", lambda: later)
    answer = (await send(client, ticket, script=True)).json()
    assert answer["signupId"] == str(expected)
    assert (await client.get(answer["statusPath"])).status_code == 200


async def test_a_post_from_elsewhere_is_refused(auth: AuthServer) -> None:
    client = AsyncClient(enforce_csrf_checks=True, headers={"Host": HOST})
    ticket = await open_form(client)
    assert (await send(client, ticket)).status_code == 403
    assert auth.posts == []


@pytest.mark.parametrize("accepted", ["ko", "ko-KR,ko;q=0.9,en;q=0.5", "fr,ko;q=0.8"])
async def test_a_browser_that_wants_korean_gets_it(client: AsyncClient, accepted: str) -> None:
    page = (await client.get("/signup/", headers={"Accept-Language": accepted})).content.decode()
    assert '<html lang="ko">' in page
    assert "비밀번호 확인" in page


async def test_auth_is_asked_for_its_messages_in_the_language_of_the_page(
    client: AsyncClient, auth: AuthServer
) -> None:
    await send(client, await open_form(client))
    await client.post("/language/", {"language": "ko"})
    await send(client, await open_form(client), userId="another")
    assert auth.languages == ["en", "ko"]


async def test_the_switch_is_kept_in_a_cookie(client: AsyncClient) -> None:
    answer = await client.post("/language/", {"language": "ko", "next": "/signup/"})
    assert (answer.status_code, answer["Location"]) == (302, "/signup/")
    assert client.cookies["django_language"].value == "ko"
    page = (await client.get("/signup/", headers={"Accept-Language": "en"})).content.decode()
    assert '<html lang="ko">' in page
    assert '<button name="language" value="en" form="signup-form" lang="en">English</button>' in page


async def test_the_switch_leads_to_no_other_site(client: AsyncClient) -> None:
    answer = await client.post("/language/", {"language": "ko", "next": "https://evil.example/"})
    assert answer["Location"] == "/"


async def test_every_page_allows_only_our_own_files(client: AsyncClient) -> None:
    for path in ("/signup/", "/signup/status/nonsense/", "/no-such-page/", "/language/"):
        response = await client.get(path)
        assert response["Content-Security-Policy"].startswith("default-src 'self';")
        assert "unsafe" not in response["Content-Security-Policy"]
        assert response["Referrer-Policy"] == "strict-origin"


@pytest.mark.parametrize("origin", ["https://evil.example", "null", f"http://{HOST}:9999"])
@pytest.mark.parametrize("path", ["/signup/", "/language/", "/account/check/"])
async def test_a_post_of_another_sites_page_is_refused_though_it_has_the_token(
    auth: AuthServer, path: str, origin: str
) -> None:
    client = AsyncClient(enforce_csrf_checks=True, headers={"Host": HOST})
    page = (await client.get("/signup/")).content.decode()
    token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page)[1]
    fields = TYPED | PASSWORDS | {"csrfmiddlewaretoken": token}
    if path == "/language/":
        fields["language"] = "ko"
    refused = await client.post(path, fields, headers={"Origin": origin})
    assert refused.status_code == 403
    assert TYPED["userName"] not in html.unescape(refused.content.decode())
    assert (await client.post(path, fields)).status_code != 403
    assert len(auth.posts) == (path == "/signup/")


async def test_a_form_of_ours_with_an_outdated_token_comes_back_as_it_was_typed(auth: AuthServer) -> None:
    site = {"Sec-Fetch-Site": "same-origin"}
    client = AsyncClient(enforce_csrf_checks=True, headers={"Host": HOST})
    fields = TYPED | PASSWORDS | {"csrfmiddlewaretoken": "outdated"}
    answer = await client.post("/signup/", fields, headers=site)
    page = html.unescape(answer.content.decode())
    assert answer.status_code == 403
    assert 'role="alert"' in page
    assert all(text in page for text in TYPED.values())
    assert PASSWORDS["userPw"] not in page
    token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page)[1]
    assert (await client.post("/signup/", fields | {"csrfmiddlewaretoken": token}, headers=site)).status_code == 303
    assert len(auth.posts) == 1


@pytest.mark.parametrize("site", [{}, {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}])
async def test_a_form_that_another_site_has_filled_in_is_not_shown(auth: AuthServer, site: dict[str, str]) -> None:
    client = AsyncClient(enforce_csrf_checks=True, headers={"Host": HOST})
    answer = await client.post("/signup/", TYPED | PASSWORDS, headers=site)
    assert answer.status_code == 403
    assert TYPED["userName"] not in html.unescape(answer.content.decode())
    assert auth.posts == []


async def test_a_script_sends_the_form_again_with_a_new_token_and_a_ticket_of_its_browser(auth: AuthServer) -> None:
    client = AsyncClient(enforce_csrf_checks=True, headers={"Host": HOST})
    headers = {"Accept": "application/json", "Sec-Fetch-Site": "same-origin"}
    renewed = await client.post("/signup/", TYPED | PASSWORDS, headers=headers)
    assert renewed.status_code == 403
    fields = TYPED | PASSWORDS | {"csrfmiddlewaretoken": renewed.json()["csrfToken"]}
    foreign = await client.post("/signup/", fields | {"ticket": "another browser's"}, headers=headers)
    assert (foreign.status_code, auth.posts) == (403, [])
    own = await client.post("/signup/", fields | {"ticket": foreign.json()["formTicket"]}, headers=headers)
    assert own.json()["signupId"] == foreign.json()["signupId"]
    assert len(auth.posts) == 1


async def test_a_language_that_does_not_exist_leaves_the_form_as_it_is(client: AsyncClient) -> None:
    answer = await client.post("/signup/", TYPED | {"language": "xx"})
    assert '<html lang="en">' in answer.content.decode()
    assert TYPED["userName"] in html.unescape(answer.content.decode())
    assert "django_language" not in client.cookies


async def test_no_password_is_logged(client: AsyncClient, auth: AuthServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    auth.problems = [problem(502), problem(503), problem(422)]
    ticket = await open_form(client)
    for _ in range(3):
        await send(client, ticket)
    assert len(auth.posts) == 4
    assert str(signup_id_of(client, ticket)) in caplog.text
    assert PASSWORD not in caplog.text
