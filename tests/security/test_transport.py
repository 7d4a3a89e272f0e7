"""HTTPS, trusted proxies, and the headers of every answer of a production web process."""

import json
import socket
import urllib.request
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPResponse
from typing import Any
from urllib.error import HTTPError

import pytest
from django.core import signing

from runtime.processes.health import Heartbeat, health_server
from signup_sync.server.transport import SecurityHeaders
from tests.security.production import ENVIRONMENT, PROXY, PUBLIC_URL, STRANGER, Answer, Web, production_web
from tests.unit.test_settings import load_settings

YEAR = "max-age=31536000; includeSubDomains; preload"
TICKET = "0199aa00-0000-7000-8000-000000000000"
# One path for each source of answers: Django's page, its errors, static files and their errors, the API's problems,
# health, metrics.
PAGES = ["/signup/?next=%2F", "/admin/login/", "/nothing", "/static/front/site.css", "/static/nothing"]
API = ["/user", f"/user/signups/{TICKET}", f"/user/signups/{TICKET}/events", "/user/nothing"]
INSIDE = ["/health/live", "/health/ready", "/health/nothing", "/metrics"]
HANDSHAKE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec_WebSocket_Version": "13",
}


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    with production_web(tmp_path_factory.mktemp("web")) as running:
        yield running


@pytest.fixture(scope="module")
def slow_web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    """The same, but it waits for the head of a request for only one second."""
    with production_web(tmp_path_factory.mktemp("slow-web"), REQUEST_HEAD_TIMEOUT="1") as running:
        yield running


@pytest.mark.parametrize("path", [*PAGES, *API, *INSIDE])
def test_every_answer_has_the_security_headers(web: Web, path: str) -> None:
    answer = web.get_by_https(path)
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["strict-transport-security"] == YEAR
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["referrer-policy"] == "strict-origin"
    assert answer.headers["cross-origin-opener-policy"] == "same-origin"
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert "server" not in answer.headers
    if path == PAGES[3]:
        assert answer.status == 200
        assert answer.headers["cache-control"] == "max-age=60, public"
        assert "access-control-allow-origin" not in answer.headers
    else:
        assert "no-store" in answer.headers["cache-control"]


def handshake(*more: str, **changed: str) -> bytes:
    """Send a WebSocket handshake through the trusted proxy; a header changed to "" is omitted."""
    named = HANDSHAKE | {"Host": "signup.example.org", "X_Forwarded_Proto": "https", "Origin": PUBLIC_URL} | changed
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in named.items() if value]
    return "\r\n".join(["GET /ws/signup/x/ HTTP/1.1", *lines, *more, "", ""]).encode("latin-1")


REFUSED_HANDSHAKES = {
    "no key": (handshake(Sec_WebSocket_Key=""), 400),
    "a bad key": (handshake(Sec_WebSocket_Key="x"), 400),
    "a short key": (handshake(Sec_WebSocket_Key="aw=="), 400),
    "two keys": (handshake("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="), 400),
    "version 12": (handshake(Sec_WebSocket_Version="12"), 400),
    "no version": (handshake(Sec_WebSocket_Version=""), 400),
    "two upgrades": (handshake(Upgrade="websocket, h2c"), 426),
    "bad protocols": (handshake(Sec_WebSocket_Protocol=", ,"), 400),
    "9 KB of cookies": (handshake(Cookie="x=" + "y" * 9000), 431),
    "150 headers": (handshake(*(f"X-{number}: y" for number in range(150))), 431),
    "20 KB of headers": (handshake(*(f"X-{number}: {'y' * 1000}" for number in range(20))), 431),
    "a long path": (handshake().replace(b"/x/", b"/" + b"x" * 9000 + b"/"), 414),
    "latin-1 in the path": (handshake().replace(b"/x/", b"/\xff/"), 400),
    "another origin": (handshake(Origin="https://evil.example"), 403),
    "plain HTTP": (handshake(X_Forwarded_Proto="http"), 403),
}


@pytest.mark.parametrize(("sent", "status"), REFUSED_HANDSHAKES.values(), ids=REFUSED_HANDSHAKES)
def test_a_refused_handshake_has_the_security_headers(web: Web, sent: bytes, status: int) -> None:
    """Each layer can refuse it: the HTTP parser, the library for WebSockets, the server and the application."""
    with socket.create_connection((STRANGER, web.port), timeout=30, source_address=(PROXY, 0)) as peer:
        peer.sendall(sent)
        response = HTTPResponse(peer)
        response.begin()
        assert response.status == status
        names = [name.lower() for name in response.headers]
        assert len(names) == len(set(names)), "a header stands twice"
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Cache-Control"] == "no-store"
        assert response.headers["Content-Security-Policy"] == "default-src 'none'; frame-ancestors 'none'"
        assert response.headers["Referrer-Policy"] == "strict-origin"


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize("lies", [{}, {"Host": "evil.example"}, {"X_Forwarded_Host": "evil.example"}])
def test_a_page_by_plain_http_is_sent_on_to_the_public_address(web: Web, path: str, lies: dict[str, str]) -> None:
    answer = web.get(path, **lies)
    assert (answer.status, answer.headers["location"]) == (301, PUBLIC_URL + path)
    assert "strict-transport-security" not in answer.headers, "a browser must ignore it there (RFC 6797, 7.2)"
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("path", ["//evil.example/", "/%0d%0aSet-Cookie:a=b", "/\\evil.example", "/%2e%2e//x?y=%0a"])
def test_the_redirect_to_https_always_leads_to_the_public_address(web: Web, path: str) -> None:
    answer = web.get(path)
    assert (answer.status, answer.headers["location"]) == (301, PUBLIC_URL + path)
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("path", INSIDE)
def test_a_probe_is_answered_over_plain_http(web: Web, path: str) -> None:
    assert web.get(path).status == {"/health/ready": 503, "/health/nothing": 404}.get(path, 200)


@pytest.mark.parametrize("path", API)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_the_api_refuses_plain_http_and_redirects_nobody(web: Web, path: str, method: str) -> None:
    """A redirect would hide from clients that they send passwords unencrypted (ASVS 5.0, 4.1.2)."""
    answer = web.get(path, method=method, body="{}", Content_Type="application/json")
    assert (answer.status, answer.headers["content-type"]) == (403, "application/problem+json")
    assert "HTTPS" in json.loads(answer.body)["detail"]
    assert "no-store" in answer.headers["cache-control"]
    assert "location" not in answer.headers


def test_the_api_takes_plain_http_from_the_front(web: Web) -> None:
    key = ENVIRONMENT["SECRET_KEY"]
    genuine = signing.TimestampSigner(key=key, salt="signup-address").sign("-")
    asked = {"method": "POST", "body": "[]", "Content_Type": "application/json"}
    assert web.get("/user", **asked, Signup_Address=genuine).status == 400
    for forged in ("", " ", "x:y:z", genuine + "x", signing.TimestampSigner(key=key, salt="signup-ticket").sign("-")):
        assert web.get("/user", **asked, Signup_Address=forged).status == 403


@pytest.mark.parametrize("name", ["X_Forwarded_Proto", "X_Forwarded_Ssl", "X_Forwarded_Scheme", "Forwarded"])
def test_nobody_but_a_trusted_proxy_may_claim_https(web: Web, name: str) -> None:
    claim = {name: {"X_Forwarded_Ssl": "on", "Forwarded": "proto=https"}.get(name, "https")}
    assert web.get("/signup/", source=STRANGER, **claim).status == 301
    assert web.get("/user", source=STRANGER, **claim).status == 403
    # Only the agreed header of a proxy counts.
    is_believed = name == "X_Forwarded_Proto"
    assert (web.get("/signup/", source=PROXY, **claim).status == 301) is not is_believed


@pytest.mark.parametrize(
    "says", ["http", "", "https, http", "http, https", "https,https", "httpsx", "ftp", "https\t;x"]
)
def test_only_https_is_accepted_as_a_proxys_scheme(web: Web, says: str) -> None:
    assert web.get("/signup/", source=PROXY, X_Forwarded_Proto=says).status == 301


def test_the_last_of_several_headers_is_the_nearest_proxys(web: Web) -> None:
    for said, status in (["https", "http"], 301), (["http", "https"], 200):
        peer = HTTPConnection("127.0.0.1", web.port, timeout=30, source_address=(PROXY, 0))
        peer.putrequest("GET", "/signup/")
        for each in said:
            peer.putheader("X-Forwarded-Proto", each)
        peer.endheaders()
        assert peer.getresponse().status == status
        peer.close()


def test_a_forwarded_host_is_never_used(web: Web) -> None:
    page = web.get_by_https(
        "/signup/", Host="signup.example.org", X_Forwarded_Host="evil.example", X_Forwarded_Port="81"
    )
    assert page.status == 200
    assert b"evil.example" not in page.body
    assert web.get_by_https("/signup/", Host="evil.example", X_Forwarded_Host="signup.example.org").status == 400


@pytest.mark.parametrize("path", ["/ws/signup/x/", "/ws/nothing", "/"])
def test_a_socket_by_plain_http_is_refused(web: Web, path: str) -> None:
    answer = web.get(path, Host="127.0.0.1", Origin="http://127.0.0.1", **HANDSHAKE)
    assert (answer.status, answer.headers["x-content-type-options"]) == (403, "nosniff")
    assert answer.headers["cache-control"] == "no-store"
    assert "strict-transport-security" not in answer.headers


def test_a_foreign_pages_socket_is_refused_with_the_headers(web: Web) -> None:
    answer = web.get_by_https("/ws/signup/x/", Origin="https://evil.example", **HANDSHAKE)
    assert (answer.status, answer.headers["strict-transport-security"]) == (403, YEAR)
    assert answer.headers["cache-control"] == "no-store"
    assert "ASGI" not in web.log()


def has_the_headers(answer: Answer) -> bool:
    return (
        answer.headers["cache-control"] == "no-store"
        and answer.headers["x-content-type-options"] == "nosniff"
        and answer.headers["strict-transport-security"] == YEAR
        and answer.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
        and answer.headers["referrer-policy"] == "strict-origin"
    )


@pytest.mark.parametrize("path", ["/x", "/user"])
@pytest.mark.parametrize(("query", "headers", "status"), [(9000, 0, 414), (0, 20_000, 431)])
def test_requests_refused_unread_have_the_security_headers(
    web: Web, path: str, query: int, headers: int, status: int
) -> None:
    """The application refuses the first one, and the server's protocol the second one."""
    answer = web.get_by_https(f"{path}?{'y' * query}", X_Long="x" * headers)
    assert answer.status == status
    assert has_the_headers(answer), answer.headers


@pytest.mark.parametrize("length", [100_000, 5_000_000])
@pytest.mark.parametrize("path", ["/login/", "/user"])
def test_a_body_that_is_too_long_is_refused_with_the_security_headers(web: Web, path: str, length: int) -> None:
    body = "x" * length
    answer = web.get_by_https(path, method="POST", body=body, Content_Type="application/json")
    assert answer.status == 413
    assert has_the_headers(answer), answer.headers


@pytest.mark.parametrize(
    ("sent", "status"), [(b"nonsense\r\n\r\n", 400), (b"GET /user HTTP/1.1\r\n", 408), (b"G", 408)]
)
def test_malformed_requests_are_refused_with_the_security_headers(slow_web: Web, sent: bytes, status: int) -> None:
    with socket.create_connection(("127.0.0.1", slow_web.port), timeout=30) as peer:
        peer.sendall(sent)
        response = HTTPResponse(peer)
        response.begin()
    answer = Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, b"", [])
    assert answer.status == status
    assert has_the_headers(answer), answer.headers


def test_refusals_over_plain_http_have_no_hsts_header(web: Web) -> None:
    answer = web.get("/x?" + "y" * 9000)
    assert (answer.status, "strict-transport-security" in answer.headers) == (414, False)


def test_cookies_are_for_https_only(web: Web) -> None:
    cookies = web.get_by_https("/signup/", Host="signup.example.org").cookies
    page = web.get_by_https("/admin/login/", Host="signup.example.org")
    assert "camera=()" in page.headers["permissions-policy"]
    cookies += page.cookies
    assert {cookie.partition("=")[0] for cookie in cookies} == {"__Host-csrftoken", "__Host-signup_browser"}
    for cookie in cookies:
        assert "; Secure" in cookie
        assert "; HttpOnly" in cookie
        assert "; SameSite=Lax" in cookie
        assert "; Path=/" in cookie
        assert "Domain" not in cookie


def test_every_cookie_of_production_has_the_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    production, _ = load_settings(monkeypatch, ENVIRONMENT)
    names = [value for name, value in production.items() if name.endswith("_COOKIE_NAME")]
    assert len(names) == 3
    assert all(name.startswith("__Host-") for name in names)
    for kind in ("SESSION", "CSRF", "LANGUAGE"):
        # The prefix requires them (RFC 6265bis, 4.1.3.2); Django's own defaults are Path=/ and no Domain.
        assert production[f"{kind}_COOKIE_SECURE"] is True
        assert f"{kind}_COOKIE_PATH" not in production
        assert f"{kind}_COOKIE_DOMAIN" not in production


@pytest.mark.parametrize(
    ("path", "method"), [("/health/live", "GET"), ("/x", "GET"), ("/metrics", "GET"), ("/", "POST")]
)
def test_a_workers_health_page_has_the_headers_too(path: str, method: str) -> None:
    with health_server(Heartbeat(), host="127.0.0.1", port=0) as port:
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", method=method)
        try:
            answer = urllib.request.urlopen(request, timeout=30)
        except HTTPError as error:
            answer = error
        with answer:
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["Cache-Control"] == "no-store"
            assert "Python" not in answer.headers["Server"]


@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_an_error_that_escapes_is_answered_with_the_security_headers(kind: str) -> None:
    """The server's own answer would have none."""

    async def fails(scope: Any, receive: Any, send: Any) -> None:
        raise LookupError("a bug")

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": kind, "path": "/", "scheme": "http", "extensions": {"websocket.http.response": {}}}
    await SecurityHeaders(fails)(scope, None, send)
    assert [each["type"].rpartition(".")[2] for each in sent] == ["start", "body"]
    assert sent[0]["status"] == 500
    assert {b"x-content-type-options", b"content-security-policy", b"cache-control"} <= {
        n for n, _ in sent[0]["headers"]
    }


async def test_an_error_after_an_answer_has_begun_ends_the_connection() -> None:
    async def fails(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise LookupError("a bug")

    async def send(message: Any) -> None:
        pass

    with pytest.raises(LookupError):
        await SecurityHeaders(fails)({"type": "http", "path": "/", "scheme": "http"}, None, send)
