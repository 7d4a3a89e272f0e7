"""Length is checked first: at every entry point, the most expensive text costs a process no more than an ordinary
request (combining marks; docs/invariants.md, 11; docs/adr/0038)."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from typing import Any
from urllib.parse import quote, urlencode
from uuid import UUID, uuid4

import pytest

from tests.client import request
from tests.conftest import Person, new_person
from tests.e2e.test_api import log_in
from tests.security.worst_texts import cpu_of_process, too_dear, worst_texts
from tests.servers.process import LOOPBACK
from tests.stack import Stack

# Not `alone`: a process's CPU time is measured, which other processes hardly change.
pytestmark = pytest.mark.needs("application")

# Bytes: below each entry point's limit, so that the text is processed, and above it, so that it is refused.
FIELD_SIZES = (2_000, 60_000)
HEADER_SIZES = (5_000, 15_000)
FORM_SIZES = (3_900, 10_000)
PATH_SIZES = (250, 1_500)
URLENCODED = "application/x-www-form-urlencoded"


@dataclass
class Web:
    """The web process itself, without the gateway, as a client inside the network reaches it."""

    port: int
    pid: int
    cookies: Mapping[str, str] = field(default_factory=dict)

    def cpu(self) -> float:
        return cpu_of_process(self.pid)

    def send(self, method: str, path: str, body: bytes | None = None, **headers: str | bytes) -> int | None:
        """Return the status of the complete answer; None if the server closed the connection."""
        connection = HTTPConnection(LOOPBACK, self.port, timeout=120)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.cookies and "Cookie" not in sent:
            sent["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        try:
            with suppress(BrokenPipeError, ConnectionResetError):
                connection.request(method, path, body=body, headers=sent)
            with suppress(HTTPException, ConnectionError):
                answer = connection.getresponse()
                if answer.status != HTTPStatus.SWITCHING_PROTOCOLS:  # the answer to a handshake has no end
                    answer.read()
                # Every text must be refused properly: a crash would be cheap, too.
                assert answer.status < HTTPStatus.INTERNAL_SERVER_ERROR, path[:100]
                return answer.status
            return None
        finally:
            connection.close()

    def post_form(self, path: str, fields: Mapping[str, str]) -> int | None:
        token = self.cookies.get("csrftoken", "")
        return self.send("POST", path, urlencode(fields).encode(), Content_Type=URLENCODED, X_CSRFToken=token)

    def post_json(self, fields: Mapping[str, str], **headers: str | bytes) -> int | None:
        # As UTF-8, not escaped: fewer bytes for each mark.
        body = json.dumps(fields, ensure_ascii=False).encode()
        return self.send("POST", "/user", body, Content_Type="application/json", **headers)


@pytest.fixture(scope="module")
def staff(stack: Stack) -> Person:
    person = new_person()
    stack.manage(
        "createsuperuser", "--noinput", "--user_id", person.user_id, "--email", person.email,
        DJANGO_SUPERUSER_PASSWORD=person.password,
    )  # fmt: skip
    return person


@pytest.fixture(scope="module")
def web(stack: Stack, staff: Person) -> Web:
    """The session is a superuser's: anybody can send the same requests as staff, and would be refused earlier."""
    role = stack.roles["web"]
    return Web(role.port, role.pid, log_in(stack, staff))


def assert_cheap(web: Web, ordinary: Callable[[], object], worst: dict[str, Callable[[], object]]) -> None:
    assert too_dear(ordinary, worst, clock=web.cpu) == []


def refused() -> dict[str, str]:
    """An ordinary request that is refused like the worst ones, so that no password is hashed."""
    return new_person().form | {"userId": "!"}


def of_sizes(sizes: tuple[int, ...]) -> Iterator[tuple[str, str]]:
    """One text for each kind of cost; test_length_first_inside.py tries the others."""
    for size in sizes:
        for name, text in worst_texts(size):
            if name in ("marks", "digits", "quoted words", "quoted quotes"):
                yield f"{name}, {size} bytes", text


@pytest.mark.parametrize("name", ["userId", "userName", "email", "userPw", "role", "unknown"])
def test_a_long_field_of_the_api_is_handled_cheaply(web: Web, name: str):
    assert_cheap(
        web,
        lambda: web.post_json(refused()),
        {
            which: partial(web.post_json, new_person().form | {name: text})
            for which, text in of_sizes((*FIELD_SIZES, 200_000))
        },
    )


@pytest.mark.parametrize("name", ["token", "userPw"])
def test_a_long_field_of_a_confirmation_is_handled_cheaply(web: Web, name: str):
    def confirm(text: str) -> int | None:
        body = json.dumps({"token": "x", "userPw": "x", name: text}, ensure_ascii=False).encode()
        return web.send("POST", "/user/confirmations", body, Content_Type="application/json")

    assert_cheap(web, partial(confirm, "x"), {which: partial(confirm, text) for which, text in of_sizes(FIELD_SIZES)})


@pytest.mark.parametrize("body", [b'{"userId":' + b"[" * 60_000, b'{"userId":' + b"9" * 60_000 + b"}"])
def test_deep_json_or_a_long_number_is_refused_cheaply(web: Web, body: bytes):
    act = partial(web.send, "POST", "/user", body, Content_Type="application/json")
    assert_cheap(web, lambda: web.post_json(refused()), {"body": act})
    assert act() == 400


def test_a_long_name_of_an_unknown_field_is_handled_cheaply(web: Web):
    worst = {which: partial(web.post_json, new_person().form | {text: "x"}) for which, text in of_sizes(FIELD_SIZES)}
    assert_cheap(web, lambda: web.post_json(refused()), worst)


@pytest.mark.parametrize(
    "name",
    [
        "Idempotency-Key", "Signup-Ticket", "Signup-Address", "Last-Event-ID", "Accept", "Accept-Language", "Prefer",
        "Content-Type", "Cookie", "traceparent", "X-Forwarded-For", "X-Forwarded-Proto", "Origin", "Host", "Referer",
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/user", f"/user/signups/{UUID(int=4)}/events", "/admin/login/"])
def test_a_long_header_is_handled_cheaply(web: Web, path: str, name: str):
    if path == "/user":
        send = partial(web.send, "POST", path, json.dumps({"userId": "x"}).encode())
    else:
        send = partial(web.send, "GET", path)
    headers = {} if name == "Content-Type" else {"Content_Type": "application/json"}
    worst = {which: partial(send, **headers | {name: text.encode()}) for which, text in of_sizes(HEADER_SIZES)}
    assert_cheap(web, partial(send, **headers), worst)


@pytest.mark.parametrize("name", ["sessionid", "csrftoken", "signup_browser", "messages", "django_language"])
@pytest.mark.parametrize("path", ["/signup/", "/admin/"])
def test_a_long_cookie_is_handled_cheaply(web: Web, path: str, name: str):
    ordinary = partial(web.send, "GET", path, Cookie=f"{name}=x")
    worst = {
        which: partial(web.send, "GET", path, Cookie=f'{name}="{quoted}"'.encode())
        for which, text in of_sizes(HEADER_SIZES)
        for quoted in (text.replace('"', "\\042"),)
    }
    assert_cheap(web, ordinary, worst)


# The page, and the fields of an ordinary post.
FORMS: dict[str, tuple[str, dict[str, str]]] = {
    "sign-up": ("/signup/", {"userId": "mina", "userName": "Mina", "email": "m", "userPw": "x", "ticket": "x"}),
    "check": ("/account/check/", {"userId": "mina", "userName": "Mina", "email": "m@x.org", "userPw": "abcdefg1"}),
    "login": ("/login/", {"username": "mina", "password": "wrong"}),
    "admin login": ("/admin/login/", {"username": "mina", "password": "wrong"}),
    "forgotten password": ("/password/", {"email": "nobody@example.org"}),
    "new password": ("/account/password/", {"old_password": "x", "new_password1": "y", "new_password2": "y"}),
    "confirmation": ("/signup/confirm/x/", {"token": "x"}),
    "code": ("/login/code/", {"code": "123456"}),
    "two-factor setup": ("/account/two-factor/setup/", {"code": "123456"}),
    "two-factor off": ("/account/two-factor/off/", {"code": "123456", "password": "x"}),
    "language": ("/language/", {"language": "en", "next": "/signup/"}),
    "new user": ("/admin/authsvc/user/add/", {
        "user_id": "mina", "email": "m", "user_name": "Mina", "role": "ROLE_USER", "password1": "x", "password2": "y",
    }),
    "new row of chat": ("/admin/chatsvc/chatuser/add/", {"user_id": "", "email": "m", "user_name": "x", "role": "x"}),
    "new group": ("/admin/auth/group/add/", {"name": ""}),
    "act on sign-ups": ("/admin/authsvc/eventtransaction/", {"action": "x", "_selected_action": "x", "service": "x"}),
    "act on letters": ("/admin/eventbus/deadletter/", {"action": "x", "_selected_action": "1", "reason": "x"}),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_a_long_field_of_a_form_is_handled_cheaply(web: Web, form: str):
    path, fields = FORMS[form]
    # The middleware that refuses the longer ones is the same for every page.
    sizes = FORM_SIZES[:1] if path.startswith("/admin/authsvc") else FORM_SIZES
    worst = {
        f"{name}: {which}": partial(web.post_form, path, fields | {name: text})
        for name in (*fields, "unknown")
        for which, text in of_sizes(sizes)
    }
    assert_cheap(web, partial(web.post_form, path, fields), worst)


@pytest.mark.parametrize(
    "path", ["/signup/", "/login/", "/account/check/", "/admin/login/", "/admin/authsvc/user/add/"]
)
@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_form_that_is_too_long_as_a_whole_is_refused(web: Web, path: str, is_chunked: bool):
    def post(text: str) -> int | None:
        body = urlencode({"userId": text, "username": text, "password": "x"}).encode()
        # Without a Content-Length, the length is unknown until the body has arrived.
        sent: Any = iter([body]) if is_chunked else body
        return web.send("POST", path, sent, Content_Type=URLENCODED, X_CSRFToken=web.cookies["csrftoken"])

    worst = {which: partial(post, text) for which, text in of_sizes((131_000,))}
    assert_cheap(web, partial(post, "mina"), worst)
    assert post("x" * 1_000_000) in (413, None)


@pytest.mark.parametrize(
    ("path", "most"), [("/signup/", 32_768), ("/login/", 32_768), ("/admin/login/", 65_536), ("/user", 65_536)]
)
def test_the_gateway_accepts_no_more_than_a_form_needs(stack: Stack, path: str, most: int):
    def post(size: int) -> int:
        kind = "application/json" if path == "/user" else URLENCODED
        return request(stack, "POST", path, b"x" * size, Content_Type=kind).status

    # A text that is short enough is read, and then refused for its content.
    assert post(most) in (400, 403)
    assert post(most + 1) == post(1_000_000) == 413


@pytest.mark.parametrize(
    "path",
    [
        "/admin/authsvc/user/?q=", "/admin/authsvc/eventtransaction/?q=", "/admin/chatsvc/chatuser/?q=",
        "/admin/customersvc/customer/?q=", "/admin/eventbus/deadletter/?q=", "/admin/auth/group/?q=",
        "/admin/authsvc/unconfirmedsignup/?q=", "/signup/confirm/",
        "/admin/authsvc/eventtransaction/?lights=", "/admin/authsvc/eventtransaction/?failure=",
        "/admin/authsvc/eventtransaction/?begun=",
        "/admin/authsvc/user/?role__exact=", "/admin/authsvc/eventtransaction/?p=",
        "/admin/authsvc/eventtransaction/?o=",
        "/admin/eventbus/deadletter/?group=", "/admin/authsvc/trafficminute/?span=", "/admin/eventbus/topic/x/?key=",
        "/login/?next=", "/user/signups/", "/user/changes/", "/signup/status/", "/password/x/",
        "/admin/authsvc/eventtransaction/", "/static/", "/",
    ],
)  # fmt: skip
def test_a_long_query_or_path_is_handled_cheaply(web: Web, path: str):
    ordinary = partial(web.send, "GET", f"{path}mina")
    worst = {which: partial(web.send, "GET", path + quote(text)) for which, text in of_sizes(PATH_SIZES)}
    assert_cheap(web, ordinary, worst)


def test_paths_and_headers_that_are_too_long_as_a_whole_are_refused(web: Web):
    assert web.send("GET", f"/signup/?x={'x' * 10_000}") == 414
    assert web.send("GET", "/signup/", Cookie=f"x={'x' * 20_000}") == 431
    problem = web.send("GET", f"/user/signups/{uuid4()}", Signup_Ticket="x" * 20_000)
    assert problem == 431


@pytest.mark.parametrize("where", ["path", "cookie", "origin"])
def test_a_handshake_with_long_values_is_handled_cheaply(web: Web, where: str):
    def shake(text: str) -> int | None:
        headers: dict[str, str | bytes] = {
            "Connection": "Upgrade", "Upgrade": "websocket", "Sec_WebSocket_Version": "13",
            "Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25jZQ==", "Origin": f"http://{LOOPBACK}:{web.port}",
        }  # fmt: skip
        if where == "cookie":
            headers["Cookie"] = b"signup_browser=" + text.encode()
        elif where == "origin":
            headers["Origin"] = text.encode()
        path = f"/ws/signup/{quote(text, safe='') if where == 'path' else 'x'}/"
        return web.send("GET", path, **headers)

    worst = {which: partial(shake, text) for which, text in of_sizes(PATH_SIZES)}
    assert_cheap(web, partial(shake, "mina"), worst)
