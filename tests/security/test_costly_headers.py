"""No header costs more than an ordinary request: foreign cookies of any form, and Python's codecs (attacks: 15 KB of
`\\"` in a cookie, `charset=punycode`)."""

import http.client
from contextlib import closing
from functools import partial
from urllib.parse import quote

import pytest

from signup_sync.middleware.message_storage import PrefixedCookieStorage
from signup_sync.server.request_headers import keep_own_cookies
from tests.client import request
from tests.security.test_length_first import URLENCODED, Web, assert_cheap, staff, web
from tests.servers.process import LOOPBACK
from tests.stack import Stack

__all__ = ["staff", "web"]

CODECS = [
    "punycode", "idna", "hex", "zlib", "bz2", "base64", "rot13", "utf-7", "utf-16", "utf-32", "utf-8-sig", "latin-1",
    "utf8", "unicode_escape", "raw_unicode_escape", "undefined", "mbcs", "no-such-codec", "utf-8x", "UTF8\\", "",
]  # fmt: skip


def kept(*headers: bytes) -> list[bytes]:
    scope = {"headers": [(b"host", b"x"), *((b"cookie", header) for header in headers)]}
    keep_own_cookies(scope)
    assert scope["headers"][0] == (b"host", b"x")
    return [value for name, value in scope["headers"] if name == b"cookie"]


def test_only_our_cookies_are_kept_and_they_are_unchanged() -> None:
    ours = [
        b"sessionid=abc0",
        b"csrftoken=Q1",
        b"django_language=ko",
        b"signup_browser=a:b_c-d",
        PrefixedCookieStorage.cookie_name.encode() + b'=".eJx:1v=:x"',
    ]
    assert kept(b"; ".join(ours)) == [b"; ".join(ours)]
    assert kept(b"a=1; " + b"; ".join(ours[:2]) + b";sso=" + b"x" * 9_000) == [b"; ".join(ours[:2])]
    assert kept(ours[0], b"x", ours[1]) == [ours[0], ours[1]]


@pytest.mark.parametrize("header", [b"a=1", b"", b";;;", b"=", b"sessionid", b"xsessionid=1", b"SESSIONID=1"])
def test_a_header_without_a_cookie_of_ours_is_left_out(header: bytes) -> None:
    assert kept(header) == []


def test_long_or_backslash_quoted_cookies_are_dropped() -> None:
    assert kept(b'sessionid="' + b'\\"' * 100 + b'"; csrftoken=x') == [b"csrftoken=x"]
    assert kept(b"sessionid=" + b"x" * 5_000) == []


@pytest.mark.needs("application")
@pytest.mark.parametrize("name", ["sso", "sessionid", "messages", "signup_browser"])
@pytest.mark.parametrize("path", ["/signup/", "/admin/", "/user"])
def test_cookies_of_escaped_quotes_are_handled_cheaply(web: Web, path: str, name: str) -> None:
    if path == "/user":
        # The API reads a session only if an administrator is requested.
        body = b'{"userId":"mina77","email":"m@x.org","userName":"M","userPw":"correct horse 9","role":"ROLE_ADMIN"}'
        send = partial(web.send, "POST", path, body, Content_Type="application/json")
    else:
        send = partial(web.send, "GET", path)
    worst = '"' + '\\"' * 7_000 + '"'
    assert_cheap(web, partial(send, Cookie=f"{name}=x"), {"quotes": partial(send, Cookie=f"{name}={worst}")})


@pytest.mark.needs("application")
def test_many_cookies_of_other_applications_neither_refuse_a_request_nor_end_its_session(web: Web) -> None:
    others = "; ".join(f"sso{number}={'x' * 1_000}" for number in range(9))
    ours = "; ".join(f"{name}={value}" for name, value in web.cookies.items())
    assert web.send("GET", "/admin/", Cookie=f"{others}; {ours}") == 200
    assert web.send("GET", "/admin/", Cookie=others) == 302


@pytest.mark.needs("application")
@pytest.mark.parametrize("path", ["/signup/", "/login/", "/admin/login/", "/account/check/", "/user"])
def test_a_codec_other_than_utf_8_is_refused_before_anything_is_decoded(web: Web, path: str) -> None:
    for kind in (URLENCODED, "application/json"):
        for codec in CODECS:
            for written in (f"charset={codec}", f'Charset = "{codec}"', f"charset*={codec}''x", f"x*={codec}''x"):
                said = f"{kind}; {written}".encode("latin-1", "replace")
                assert web.send("POST", path, b"userId=x", Content_Type=said) == 415, (path, said)


@pytest.mark.needs("application")
@pytest.mark.parametrize("codec", ["", "; charset=utf-8", ";charset=UTF-8", '; charset="utf-8"', ";"])
def test_utf_8_is_accepted_however_it_is_spelt(web: Web, codec: str) -> None:
    token = web.cookies["csrftoken"]
    body = f"username=mina&password=x&csrfmiddlewaretoken={token}".encode()
    assert web.send("POST", "/login/", body, Content_Type=f"{URLENCODED}{codec}") == 200
    assert web.send("POST", "/user", b"{}", Content_Type=f"application/json{codec}") == 422


@pytest.mark.needs("application")
def test_a_refused_codec_is_explained(stack: Stack) -> None:
    page = request(stack, "POST", "/login/", b"username=x", Content_Type=f"{URLENCODED}; charset=punycode")
    assert (page.status, page.headers["X-Content-Type-Options"]) == (415, "nosniff")
    assert b"UTF-8" in page.body
    problem = request(stack, "POST", "/user", b"{}", Content_Type="application/json; charset=hex").json
    assert (problem["status"], "UTF-8" in problem["detail"]) == (415, True)


@pytest.mark.needs("application")
@pytest.mark.parametrize(
    "piece", ['; x="', '; x=\\"', ";x*=punycode''a", "; a*0*=utf-8''%41", ";charset=utf-8", "; a=b"]
)
def test_a_content_type_costs_nothing_however_long_it_is(web: Web, piece: str) -> None:
    for path in ("/signup/", "/user", "/admin/login/"):
        send = partial(web.send, "POST", path, b"x=y")
        assert_cheap(
            web,
            partial(send, Content_Type=URLENCODED),
            {"long": partial(send, Content_Type=URLENCODED + piece * (14_000 // len(piece)))},
        )


@pytest.mark.needs("application")
def test_a_form_of_parts_whose_headers_name_a_codec_is_refused(web: Web) -> None:
    """No form of ours is sent as multipart/form-data; its parts have headers of their own, with codecs of their own."""
    body = b"--b\r\nContent-Disposition: form-data; name*=punycode''" + b"%41" * 300 + b"\r\n\r\nx\r\n--b--\r\n"
    for path in ("/signup/", "/login/", "/admin/login/", "/user"):
        assert web.send("POST", path, body, Content_Type="multipart/form-data; boundary=b") == 415


@pytest.mark.needs("application")
def test_two_content_types_are_refused(web: Web) -> None:
    with closing(http.client.HTTPConnection(LOOPBACK, web.port, timeout=30)) as peer:
        peer.putrequest("POST", quote("/login/"))
        for kind in (f"{URLENCODED}; charset=utf-8", "x"):
            peer.putheader("Content-Type", kind)
        peer.putheader("Content-Length", "0")
        peer.endheaders()
        assert peer.getresponse().status == 415
