"""HTTP as its RFCs define it, sent byte by byte: directly to `manage.py serve`, and through the gateway."""

import base64
import codecs
import json
import select
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPResponse
from urllib.parse import urlsplit

import pytest

from tests.conftest import new_person
from tests.contract.documents import states_of
from tests.servers.process import LOOPBACK
from tests.stack import Stack
from tests.waiting import PATIENCE

pytestmark = pytest.mark.needs("application")

H2C = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAABkAAQAAP__"}
STREAM = "text/event-stream"
# Seconds in which a premature answer would have arrived.
TOO_EARLY = 0.2


@pytest.fixture(params=["direct", pytest.param("gateway", marks=pytest.mark.needs("caddy"))])
def port(request: pytest.FixtureRequest, stack: Stack) -> int:
    """The port of a process, and that of the gateway in front of the processes."""
    if request.param == "gateway":
        return urlsplit(stack.base_url).port or 0
    return stack.roles["web"].port


@pytest.fixture(autouse=True)
def nothing_fails(stack: Stack) -> Iterator[None]:
    """No request of these tests makes a process log a traceback."""
    before = {name: len(log) for name, log in stack.logs().items()}
    yield
    for name, log in stack.logs().items():
        assert "Traceback" not in log[before[name] :], name


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes
    version: int

    @property
    def is_stream(self) -> bool:
        return self.headers.get("content-type", "").startswith(STREAM)


def head(
    target: str = "/user", *more: tuple[str, str], method: str = "POST", version: str = "1.1", **headers: str
) -> bytes:
    lines = [f"{method} {target} HTTP/{version}", f"Host: {LOOPBACK}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in (*headers.items(), *more)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def exchange(port: int, *pieces: bytes, method: str = "POST") -> Answer:
    """Sends each piece in a separate packet, and reads one whole answer."""
    with socket.create_connection((LOOPBACK, port), timeout=PATIENCE) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for number, piece in enumerate(pieces):
            if number:
                assert not select.select([client], [], [], TOO_EARLY)[0], "it was answered before it was whole"
            client.sendall(piece)
        response = HTTPResponse(client, method=method)
        response.begin()
        headers = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, headers, response.read(), response.version)


def posted(
    port: int, *more: tuple[str, str], body: bytes | None = None, target: str = "/user", **headers: str
) -> Answer:
    """`POST /user` of a new person."""
    body = json.dumps(new_person().form).encode() if body is None else body
    sent = {"Content_Type": "application/json", "Content_Length": str(len(body))} | headers
    return exchange(port, head(target, *more, **sent) + body)


def got(port: int, target: str, method: str = "GET", **headers: str) -> Answer:
    return exchange(port, head(target, method=method, **headers), method=method)


@dataclass(frozen=True)
class Ticket:
    target: str
    ticket: str


@pytest.fixture(scope="module")
def signed_up(stack: Stack) -> Ticket:
    """A complete sign-up: the path of its state, and its ticket."""
    body = json.dumps(new_person().form).encode()
    answer = posted(stack.roles["web"].port, body=body, Accept=STREAM)
    last = states_of(answer.body.decode())[-1]
    return Ticket(f"/user/signups/{last['signupId']}", answer.headers["signup-ticket"])


# --- Upgrades


@pytest.mark.parametrize("is_at_once", [True, False], ids=["one packet", "two packets"])
@pytest.mark.parametrize("is_chunked", [False, True], ids=["length", "chunked"])
def test_an_upgrade_to_http_2_is_ignored_and_the_sign_up_accepted(
    port: int, is_at_once: bool, is_chunked: bool
) -> None:
    body = json.dumps(new_person().form).encode()
    if is_chunked:
        headers = {"Transfer_Encoding": "chunked"}
        body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    else:
        headers = {"Content_Length": str(len(body))}
    start = head("/user", *H2C.items(), Content_Type="application/json", **headers)
    answer = exchange(port, start + body) if is_at_once else exchange(port, start, body)
    assert answer.status == 202, answer.body


def test_a_connection_continues_after_an_upgrade_that_is_ignored(stack: Stack) -> None:
    """Even if the next request came in the same packet."""
    body = json.dumps(new_person().form).encode()
    first = head("/user", *H2C.items(), Content_Type="application/json", Content_Length=str(len(body))) + body
    then = head("/health/live", method="GET", Connection="close")
    with socket.create_connection((LOOPBACK, stack.roles["web"].port), timeout=PATIENCE) as client:
        client.sendall(first + then)
        answer = b"".join(iter(lambda: client.recv(65_536), b""))
    assert answer.startswith(b"HTTP/1.1 202 ")
    assert answer.count(b"HTTP/1.1 200 ") == 1


@pytest.mark.parametrize("upgrade", ["websocket", "WebSocket, h2c", "TLS/1.0", "foo/2", ""])
def test_any_upgrade_of_a_post_is_ignored(port: int, upgrade: str) -> None:
    assert posted(port, Connection="upgrade", Upgrade=upgrade).status == 202


def test_an_upgrade_of_a_get_is_ignored(port: int) -> None:
    for version in ("1.0", "1.1"):
        assert exchange(port, head("/signup/", *H2C.items(), method="GET", version=version)).status == 200


@pytest.mark.parametrize("target", ["127.0.0.1:443", "/user"])
def test_connect_is_refused(port: int, target: str) -> None:
    assert 400 <= got(port, target, "CONNECT").status < 500


# --- Accept


STREAMS = {
    "Text/Event-Stream": True,
    "text/event-stream": True,
    "text/event-stream;charset=utf-8": True,
    "TEXT/EVENT-STREAM ; Q=0.1": True,
    "application/json;q=0.5, text/event-stream": True,
    "application/json, text/event-stream": True,
    'text/event-stream;x="a,b;q=0"': True,
    "text/event-stream;q=0": False,
    "text/event-stream;q=0.000": False,
    "text/event-stream; q=0, application/json": False,
    "text/event-stream;q=0.2, application/json": False,
    "text/event-stream;q=0.2, */*": False,
    "*/*": False,
    "text/*": False,
    "application/json": False,
    "text/event-streams": False,
    "x/text/event-stream": False,
    'application/json;x="text/event-stream"': False,
    "": False,
    '";q=,,;"': False,
}


@pytest.mark.parametrize("accept", STREAMS)
def test_accept_asks_for_the_stream_or_the_state(port: int, accept: str) -> None:
    answer = posted(port, Accept=accept)
    assert (answer.status, answer.is_stream) == ((200, True) if STREAMS[accept] else (202, False))


@pytest.mark.parametrize("accepts", [(STREAM, "application/json"), ("application/json", STREAM)])
def test_several_accept_headers_are_one(port: int, accepts: tuple[str, str]) -> None:
    assert posted(port, *(("Accept", accept) for accept in accepts)).is_stream


# --- Bodies


@pytest.mark.parametrize(
    "content_type",
    [
        "Application/JSON",
        "application/json ; Charset=UTF-8",
        'application/json;charset="utf-8"',
        "application/json;v=1",
    ],
)
def test_a_media_type_is_read_as_its_rfc_says(port: int, content_type: str) -> None:
    assert posted(port, Content_Type=content_type).status == 202


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json;charset=utf-16",
        'application/json; charset="iso-8859-1"',
        "application/json;charset=nonsense",
        "text/plain; x=application/json",
        "application/json, text/plain",
        "application/jsonx",
    ],
)
def test_an_unsupported_media_type_or_charset_is_415(port: int, content_type: str) -> None:
    assert posted(port, Content_Type=content_type).status == 415


@pytest.mark.parametrize("coding", ["gzip", "GZip", "br", "deflate", "zstd", "identity, gzip", "nonsense"])
@pytest.mark.parametrize("target", ["/user", "/user/confirmations", "/signup/"])
def test_an_encoded_body_is_415_and_the_answer_lists_accepted_encodings(port: int, coding: str, target: str) -> None:
    answer = posted(port, Content_Encoding=coding, target=target)
    assert (answer.status, answer.headers["accept-encoding"]) == (415, "identity")
    if target.startswith("/user"):
        assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("coding", ["identity", "Identity", ""])
def test_a_body_that_is_encoded_as_itself_is_accepted(port: int, coding: str) -> None:
    assert posted(port, Content_Encoding=coding).status == 202


@pytest.mark.parametrize(
    "encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be", "latin-1"]
)
def test_json_that_is_not_utf_8_is_400(port: int, encoding: str) -> None:
    body = json.dumps(new_person().form | {"userName": "Zoë"}, ensure_ascii=False).encode(encoding)
    answer = posted(port, body=body)
    assert answer.status == 400
    assert "UTF-8" in json.loads(answer.body)["detail"]


def test_a_byte_order_mark_before_utf_8_is_ignored(port: int) -> None:
    assert posted(port, body=codecs.BOM_UTF8 + json.dumps(new_person().form).encode()).status == 202


def test_a_name_twice_in_a_json_object_is_400(port: int) -> None:
    body = json.dumps(new_person().form).encode()
    answer = posted(port, body=body[:-1] + b', "userId": "other"}')
    assert answer.status == 400
    assert "userId" in json.loads(answer.body)["detail"]


@pytest.mark.parametrize("value", [b"NaN", b"-Infinity", b"1" * 5000, b"1e999", b'"\\ud83d"', b'"\\u0000"'])
def test_json_that_cannot_be_stored_is_refused(port: int, value: bytes) -> None:
    body = json.dumps(new_person().form).encode()
    assert posted(port, body=body[:-1] + b', "role": ' + value + b"}").status in (400, 422)


@pytest.mark.parametrize("charset", ["utf-16", "rot13", "hex", "idna", "nonsense", "\xff", "utf-8", "UTF-8"])
@pytest.mark.parametrize("target", ["/signup/", "/login/", "/signup/check/"])
def test_a_form_of_any_charset_is_answered(port: int, charset: str, target: str) -> None:
    answer = posted(
        port, body=b"userId=kim", target=target, Content_Type=f"application/x-www-form-urlencoded; charset={charset}"
    )
    assert answer.status == 415 if charset not in ("utf-8", "UTF-8") else answer.status not in (415, 500)


@pytest.mark.parametrize("charset", ["hex", "idna", "rot13"])
def test_a_codec_of_python_fails_no_page(port: int, charset: str) -> None:
    """Django would decode the query with it."""
    for content_type in (f"text/plain; charset={charset}", f'multipart/form-data; boundary=x; CHARSET="{charset}"'):
        assert got(port, "/signup/?next=%ff", Content_Type=content_type).status == 415


@pytest.mark.parametrize("coding", ["gzip, chunked", "identity", "chunked, chunked", "nonsense"])
def test_a_transfer_coding_that_is_not_understood_is_refused(port: int, coding: str) -> None:
    start = head("/user", Content_Type="application/json", Transfer_Encoding=coding)
    answer = exchange(port, start + b"2\r\n{}\r\n0\r\n\r\n")
    assert answer.status in (400, 501)


def test_a_client_that_expects_100_continue_gets_it(port: int) -> None:
    body = json.dumps(new_person().form).encode()
    with socket.create_connection((LOOPBACK, port), timeout=PATIENCE) as client:
        client.sendall(
            head(
                Content_Type="application/json",
                Content_Length=str(len(body)),
                Expect="100-Continue",
                Connection="close",
            )
        )
        assert client.recv(25).startswith(b"HTTP/1.1 100 Continue")
        client.sendall(body)
        assert b"HTTP/1.1 202 " in b"".join(iter(lambda: client.recv(65_536), b""))


# --- HTTP/1.0


@pytest.mark.parametrize("accept", ["application/json", STREAM])
@pytest.mark.parametrize("connection", ["close", "keep-alive"])
def test_an_http_1_0_answer_has_no_chunks(port: int, accept: str, connection: str) -> None:
    body = json.dumps(new_person().form).encode()
    sent = head(
        version="1.0",
        Content_Type="application/json",
        Content_Length=str(len(body)),
        Accept=accept,
        Connection=connection,
    )
    answer = exchange(port, sent + body)
    assert "transfer-encoding" not in answer.headers
    if accept == STREAM:
        assert answer.body.startswith(b"retry:")
        assert states_of(answer.body.decode())[-1]["complete"]
    else:
        assert json.loads(answer.body)["version"] == 2


@pytest.mark.parametrize("target", ["/signup/", "/login/", "/static/front/signup.js", "/nowhere/", "/user"])
def test_an_http_1_0_page_has_no_chunks(port: int, target: str) -> None:
    answer = exchange(port, head(target, method="GET", version="1.0"))
    assert "transfer-encoding" not in answer.headers
    assert answer.body
    assert not answer.body.endswith(b"0\r\n\r\n")


# --- Methods and targets


def test_head_answers_as_get_without_a_body(port: int, signed_up: Ticket) -> None:
    for target in (signed_up.target, f"{signed_up.target}/events"):
        answer = got(port, target, "HEAD", Signup_Ticket=signed_up.ticket)
        assert (answer.status, answer.body) == (200, b"")
        assert answer.headers["content-type"].startswith(STREAM if target.endswith("events") else "application/json")


ALLOWED = {"/user": "OPTIONS, POST", "/user/confirmations": "OPTIONS, POST", "": "GET, HEAD, OPTIONS"}


@pytest.mark.parametrize("target", ALLOWED)
@pytest.mark.parametrize("method", ["OPTIONS", "DELETE", "PUT", "PATCH", "TRACE", "PROPFIND", "QUERY"])
def test_unsupported_methods_get_the_list_of_allowed_ones(
    port: int, signed_up: Ticket, target: str, method: str
) -> None:
    answer = got(port, target or signed_up.target, method, Signup_Ticket=signed_up.ticket)
    if answer.status == 400 or (method == "TRACE" and answer.status == 405):
        return  # QUERY is no method that the parser knows
    assert answer.status == (204 if method == "OPTIONS" else 405)
    assert answer.headers["allow"] == ALLOWED[target]


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("http://127.0.0.1/user", 202),
        ("HTTP://127.0.0.1:80/user?", 202),
        ("/%75ser", 202),
        ("/user?x=%ff&x", 202),
        ("/user/", 404),
        ("/user/%00", 404),
        ("/user%2Fsignups", 404),
        ("/user/signups/../../user", 404),
        ("/User", None),
        ("//user", None),
        ("/./user", None),
        ("/user;x", None),
        ("/%ff%fe", None),
        ("/%00", None),
        ("/%", None),
        ("/\xff", None),
        ("*", None),
        ("http://127.0.0.1", None),
        ("http://[::1", None),
        ("?x", None),
    ],
)
def test_every_target_is_answered(port: int, target: str, status: int | None) -> None:
    answer = posted(port, target=target)
    assert answer.status < 500
    if status:
        assert answer.status == status


@pytest.mark.parametrize("target", ["http://127.0.0.1", "http://127.0.0.1?x=1", "http://127.0.0.1/"])
def test_an_absolute_target_without_a_path_is_the_root(port: int, target: str) -> None:
    assert got(port, target).status == got(port, "/").status < 400


# --- Other headers


@pytest.mark.parametrize(
    "headers",
    [
        {"Range": "bytes=0-1"},
        {"If-None-Match": "*"},
        {"If-Modified-Since": "Sat, 01 Jan 2050 00:00:00 GMT"},
        {"If-Match": '"x"'},
        {"Prefer": 'respond-async; wait="10, took", ,;=,"'},
        {"Last-Event-ID": "2"},
        {"traceparent": "\xff"},
        {"Accept-Language": "ko;q=\xff, \xfc-de, *;q=x"},
        {"Cookie": "sessionid=\xff; csrftoken; ;=; =x"},
        {"Signup-Address": "\xff:x:y"},
        {"Content-Language": "\xff"},
        {"X-Forwarded-For": "\xff, , ::"},
        {"X-Forwarded-Proto": "gopher"},
    ],
    ids=lambda headers: next(iter(headers)),
)
def test_headers_that_mean_nothing_here_change_nothing(port: int, headers: dict[str, str]) -> None:
    assert posted(port, *headers.items()).status == 202


@pytest.mark.parametrize("seen", ["-1", "99999999999999999999", "1e3", "\xb2", "x", "", "0x1", " 1 ", "1, 1"])
def test_an_odd_last_event_id_gets_the_whole_state(port: int, signed_up: Ticket, seen: str) -> None:
    answer = got(port, f"{signed_up.target}/events", Signup_Ticket=signed_up.ticket, Last_Event_ID=seen)
    assert answer.status == 200 or (seen == "99999999999999999999" and answer.status == 204)


@pytest.mark.parametrize("prefer", ["took", "Took", "respond-async,took", "wait=1 ,took=1;x", 'x="a,b";y, took'])
def test_prefer_is_read_as_its_rfc_says(port: int, signed_up: Ticket, prefer: str) -> None:
    answer = got(port, signed_up.target, Signup_Ticket=signed_up.ticket, Prefer=prefer)
    assert "tookMs" in json.dumps(json.loads(answer.body)) or "took" in json.dumps(json.loads(answer.body))


KEY = "0195a1c2-7b34-7e10-9d55-%012x"


@pytest.mark.parametrize(
    ("form", "status"),
    [
        ("%s", 202),
        ('"%s"', 202),
        ("{%s}", 400),
        ("urn:uuid:%s", 400),
        ("'%s'", 400),
        ("%s, %s", 400),
        ('"%s', 400),
        ("\xff", 400),
        ("", 400),
        ("0195a1c2_7b34_7e10_9d55_000000000000", 400),
    ],
)
def test_an_idempotency_key_is_a_uuid_or_one_in_quotes(port: int, form: str, status: int) -> None:
    key = KEY % int.from_bytes(new_person().user_id[-6:].encode())
    assert posted(port, Idempotency_Key=form.replace("%s", key)).status == status


def test_one_key_in_several_spellings_is_one_sign_up(port: int) -> None:
    key, body = KEY % int.from_bytes(new_person().user_id[-6:].encode()), json.dumps(new_person().form).encode()
    spellings = (key, key.upper(), f'"{key}"', f" {key} ")
    assert len({posted(port, body=body, Idempotency_Key=each).headers["location"] for each in spellings}) == 1


# --- Handshakes of WebSockets


def handshake(target: str = "/ws/signup/x/", *more: tuple[str, str], **changed: str | None) -> bytes:
    headers: dict[str, str | None] = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec_WebSocket_Version": "13",
        "Sec_WebSocket_Key": base64.b64encode(b"k" * 16).decode(),
        "Origin": f"http://{LOOPBACK}",
    }
    method, version = changed.pop("method", None) or "GET", changed.pop("version", None) or "1.1"
    kept = {name: value for name, value in (headers | changed).items() if value is not None}
    return head(target, *more, method=method, version=version, **kept)


HANDSHAKES = {
    "no key": handshake(Sec_WebSocket_Key=None),
    "a bad key": handshake(Sec_WebSocket_Key="x"),
    "a short key": handshake(Sec_WebSocket_Key=base64.b64encode(b"k").decode()),
    "two keys": handshake("/ws/signup/x/", ("Sec-WebSocket-Key", base64.b64encode(b"j" * 16).decode())),
    "version 12": handshake(Sec_WebSocket_Version="12"),
    "no version": handshake(Sec_WebSocket_Version=None),
    "no upgrade": handshake(Upgrade=None),
    "no connection": handshake(Connection=None),
    "connection: close": handshake(Connection="close"),
    "another upgrade": handshake(Upgrade="h2c"),
    "two upgrades": handshake(Upgrade="websocket, h2c"),
    "HTTP/1.0": handshake(version="1.0"),
    "POST": handshake(method="POST", Content_Length="0"),
    "HEAD": handshake(method="HEAD"),
    "PUT with a body": handshake(method="PUT", Content_Length="2") + b"{}",
    "GET with a body": handshake(Content_Length="2") + b"{}",
    "GET with chunks": handshake(Transfer_Encoding="chunked") + b"0\r\n\r\n",
    "9 KB of cookies": handshake(Cookie="x=" + "y" * 9000),
    "20 KB of headers": handshake("/ws/signup/x/", *((f"X-{n}", "y" * 1000) for n in range(20))),
    "150 headers": handshake("/ws/signup/x/", *((f"X-{n}", "y") for n in range(150))),
    "a long path": handshake("/ws/signup/" + "x" * 9000 + "/"),
    "a path of no socket": handshake("/ws/nowhere/"),
    "a page": handshake("/login/"),
    "the API": handshake("/user"),
    "an absolute target": handshake("http://127.0.0.1/ws/signup/x/"),
    "a target without a path": handshake("http://127.0.0.1"),
    "latin-1 in the path": handshake("/ws/signup/\xff/"),
    "an asterisk": handshake("*"),
    "percent signs": handshake("/ws/signup/%ff%00%/"),
    "latin-1 in a header": handshake(X="\xff"),
    "latin-1 in the origin": handshake(Origin="http://\xff"),
    "an origin that is none": handshake(Origin="http://[::1"),
    "no origin": handshake(Origin=None),
    "subprotocols": handshake(Sec_WebSocket_Protocol="\xff, ,"),
    "odd extensions": handshake(Sec_WebSocket_Extensions=";;x=\xff"),
    "an empty host": handshake("/ws/signup/x/", ("Host", "")),
}


# It is accepted first, because the page learns the reason of the refusal from the close code.
OPENED = {"percent signs", "latin-1 in a header", "odd extensions", "subprotocols", "two upgrades"}
# By the gateway, which speaks HTTP/1.1 to the process and rewrites the target.
OPENED_BY_GATEWAY = OPENED | {"HTTP/1.0", "an absolute target", "latin-1 in the path"}


@pytest.mark.parametrize("name", HANDSHAKES)
def test_a_handshake_always_gets_an_answer(stack: Stack, port: int, name: str) -> None:
    answer = exchange(port, HANDSHAKES[name], method="HEAD" if name == "HEAD" else "GET")
    assert answer.status < 500
    opened = OPENED if port == stack.roles["web"].port else OPENED_BY_GATEWAY
    assert (answer.status == 101) <= (name in opened)
