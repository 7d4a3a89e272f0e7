"""The form, its cookies and its WebSocket with input that no browser sends: no answer is a 500, and nothing is partly
saved.
"""

import re
from http.cookiejar import CookieJar
from urllib.parse import quote_from_bytes
from urllib.request import HTTPCookieProcessor, build_opener

import aiohttp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.client import request
from tests.conftest import new_person
from tests.e2e.test_api import ALL_GREEN, post, settled, statuses
from tests.garbage import bounded
from tests.stack import Stack

pytestmark = pytest.mark.needs("application")

URLENCODED = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data; boundary=b"
# A cookie may spell any byte in octal.
ODD_COOKIES = ("x", "a" * 5000, '"abcdefgh\\000"', '"abcdefgh\\377\\376"', "abcdefgh\x7f", "\xff\xfe" * 20, "=;=,\t")
PATIENCE = aiohttp.ClientWSTimeout(ws_receive=30, ws_close=30)
ODD_TICKETS = ("x", "%00", "%ff%fe", "..%2f..", "a:b:c", "%EA%B9%80", "x" * 5000, ".eJx:1:2", "%0d%0aSet-Cookie:a=b")


@pytest.fixture(scope="module", autouse=True)
def earlier(stack: Stack) -> set[tuple[object, ...]]:
    """The accounts that existed before these tests. Tests of other files have perhaps purged the sign-ups of some."""
    return set(stack.query("auth", "SELECT owner_signup_id FROM authsvc_user"))


def open_form(stack: Stack) -> tuple[str, dict[str, str]]:
    """Return the cookies of a browser that has opened the form, and the form's hidden fields."""
    jar = CookieJar()
    with build_opener(HTTPCookieProcessor(jar)).open(f"{stack.base_url}/signup/", timeout=30) as page:
        hidden = dict(re.findall(r'name="(ticket|csrfmiddlewaretoken)" value="([^"]+)"', page.read().decode()))
    assert set(hidden) == {"ticket", "csrfmiddlewaretoken"}
    return "; ".join(f"{cookie.name}={cookie.value}" for cookie in jar), hidden


@st.composite
def bodies(draw: st.DrawFn, hidden: dict[str, str]) -> tuple[str, bytes]:
    """A content type and a body: the form's with up to three corrupted fields, or arbitrary bytes."""
    person = new_person()
    typed = {"userPw2": person.password, **person.form, **hidden}
    fields = [(name.encode(), value.encode()) for name, value in typed.items()]
    odd = st.binary(max_size=80) | st.text(max_size=80).map(lambda text: text.encode(errors="surrogatepass"))
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(fields) - 1))
        # Mostly keep the token: without it every answer is the same 403.
        if fields[place][0] != b"csrfmiddlewaretoken" or draw(st.integers(0, 9)) == 0:
            fields[place] = (draw(st.just(fields[place][0]) | odd), draw(odd))
        fields += draw(st.lists(st.tuples(st.just(fields[place][0]) | odd, odd), max_size=1))
    if draw(st.integers(0, 9)) == 0:
        content_types = [URLENCODED, MULTIPART, "text/plain", "multipart/form-data", "\xff/\xfe"]
        return draw(st.sampled_from(content_types)), draw(odd)
    if draw(st.integers(0, 4)) < 4:
        pairs = [(quote_from_bytes(name), quote_from_bytes(value)) for name, value in fields]
        return URLENCODED, "&".join(map("=".join, pairs)).encode()
    parts = [b'--b\r\nContent-Disposition: form-data; name="' + name + b'"\r\n\r\n' + v + b"\r\n" for name, v in fields]
    return MULTIPART, b"".join(parts) + b"--b--\r\n"


@settings(bounded, max_examples=50)
@given(data=st.data(), is_script=st.booleans())
def test_any_body_posted_as_the_form_is_answered(stack: Stack, data, is_script):
    cookies, hidden = open_form(stack)
    content_type, body = data.draw(bodies(hidden))
    accept = "application/json" if is_script else "text/html"
    # CsrfViewMiddleware takes the token of the header where the body has none that can be read.
    token = {"X_CSRFToken": hidden["csrfmiddlewaretoken"]}
    answer = request(stack, "POST", "/signup/", body, Cookie=cookies, Content_Type=content_type, Accept=accept, **token)
    assert answer.status in (200, 303, 400, 403, 409, 415, 422), answer.body


def test_every_user_has_a_sign_up_and_every_sign_up_its_user(stack: Stack, earlier: set[tuple[object, ...]]):
    """Each user has a sign-up, and each sign-up of an account that was not removed has its user."""
    owners = set(stack.query("auth", "SELECT owner_signup_id FROM authsvc_user")) - earlier
    removed = "SELECT owner_signup_id FROM authsvc_removedaccount"
    query = f"SELECT owner_signup_id FROM authsvc_signup WHERE owner_signup_id NOT IN ({removed})"
    about = set(stack.query("auth", query)) - earlier
    assert owners
    assert owners == about
    assert about <= set(stack.query("auth", "SELECT id FROM authsvc_signup"))


@pytest.mark.parametrize("cookie", ODD_COOKIES, ids=lambda cookie: ascii(cookie)[:20])
@pytest.mark.parametrize("path", ["/signup/", "/login/", "/account/", "/admin/", "/signup/status/x/"])
def test_an_invalid_cookie_is_ignored(stack: Stack, path: str, cookie: str):
    names = ("sessionid", "signup_browser", "csrftoken", "messages")
    cookies = "; ".join(f"{name}={cookie}" for name in names)
    # 431: the longest exceed the limit for all headers together.
    assert request(stack, "GET", path, Cookie=cookies).status in (200, 302, 400, 404, 431)


@pytest.mark.parametrize("cookie", ODD_COOKIES, ids=lambda cookie: ascii(cookie)[:20])
def test_an_invalid_session_has_no_staff_rights(stack: Stack, cookie: str):
    admin = new_person().form | {"role": "ROLE_ADMIN"}
    assert post(stack, admin, Cookie=f"sessionid={cookie}").status in (400, 403)


@pytest.mark.parametrize("ticket", ODD_TICKETS, ids=lambda ticket: ticket[:20])
def test_an_odd_ticket_opens_nothing(stack: Stack, ticket: str):
    assert request(stack, "GET", f"/signup/status/{ticket}/").status in (400, 404)


async def test_odd_tickets_and_frames_end_one_socket_and_no_more(stack: Stack):
    async with aiohttp.ClientSession(headers={"Origin": stack.base_url}) as client:
        for ticket in ODD_TICKETS:
            try:
                async with client.ws_connect(f"{stack.base_url}/ws/signup/{ticket}/", timeout=PATIENCE) as socket:
                    for frame in ("x" * 100, "\0", '{"type": "signup.news"}'):
                        await socket.send_str(frame)
                    await socket.send_bytes(b"\xff" * 2_000_000)
                    async for _ in socket:
                        pass
                    assert socket.close_code in (4403, 1006, 1008, 1009)
            except aiohttp.WSServerHandshakeError as refused:
                assert refused.status in (400, 403, 404)  # noqa: PT017 - a socket may be opened, too
            except (aiohttp.ClientConnectionError, ConnectionError):
                pass  # closed while the frames were on their way
    assert statuses(settled(stack, post(stack, new_person().form))) == ALL_GREEN
