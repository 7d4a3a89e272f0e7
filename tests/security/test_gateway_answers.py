"""The gateway's own answers have the headers that web and auth would add."""

import http.client
import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.servers import CaddyServer, free_port
from tests.servers.process import LOOPBACK

pytestmark = pytest.mark.needs("caddy")

HSTS = "max-age=300; includeSubDomains"


class HstsCaddy(CaddyServer):
    def process_env(self) -> dict[str, str]:
        return super().process_env() | {"GATEWAY_HSTS": HSTS, "TRUSTED_PROXIES": "127.0.0.2/32"}


@pytest.fixture(scope="module")
def web() -> Iterator[str]:
    """host:port of a server that accepts connections and never answers; auth is down."""
    with socket.create_server((LOOPBACK, 0)) as server:
        yield f"{LOOPBACK}:{server.getsockname()[1]}"


@pytest.fixture(scope="module")
def gateway(web: str) -> Iterator[CaddyServer]:
    with HstsCaddy(web=web, auth=[f"{LOOPBACK}:{free_port()}"]) as running:
        yield running


def ask(gateway: CaddyServer, path: str, body: str | None, *, source: str, **headers: str) -> http.client.HTTPResponse:
    with closing(http.client.HTTPConnection(LOOPBACK, gateway.port, timeout=30, source_address=(source, 0))) as peer:
        peer.request("POST" if body else "GET", path, body, {k.replace("_", "-"): v for k, v in headers.items()})
        response = peer.getresponse()
        response.read()
        return response


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [
        ("/gateway/health", 200, None),
        ("/metrics", 404, None),
        ("/health/ready", 404, None),
        ("/user", 503, None),
        ("/user/signups/x", 503, None),
        ("/signup/", 413, "x" * 100_000),
        ("/admin/login/", 413, "x" * 100_000),
    ],
)
def test_the_gateways_own_answers_have_the_security_headers(
    gateway: CaddyServer, path: str, status: int, body: str | None
) -> None:
    answer = ask(gateway, path, body, source="127.0.0.2", X_Forwarded_Proto="https")
    assert answer.status == status
    assert answer.headers["Strict-Transport-Security"] == HSTS
    assert answer.headers.get_all("X-Content-Type-Options") == ["nosniff"]
    assert answer.headers.get_all("Cache-Control") == ["no-store"]
    assert answer.headers["Content-Security-Policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert answer.headers["Referrer-Policy"] == "strict-origin"


@pytest.mark.parametrize(("source", "says"), [("127.0.0.2", "http"), (LOOPBACK, "https"), (LOOPBACK, "")])
def test_the_gateway_sends_hsts_only_if_a_trusted_proxy_terminated_tls(
    gateway: CaddyServer, source: str, says: str
) -> None:
    for path in ("/gateway/health", "/metrics"):
        answer = ask(gateway, path, None, source=source, X_Forwarded_Proto=says)
        assert answer.headers["Strict-Transport-Security"] is None
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
