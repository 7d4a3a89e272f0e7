"""The README's proxy that terminates TLS, on the Docker host: Caddy with the Caddyfile that the README shows."""

import json
import re
import socket
import ssl
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from tests.client import SERVICES
from tests.compose.installation import Installation, code_blocks_of_the_readme
from tests.conftest import ARTIFACTS, new_person
from tests.contract.documents import states_of
from tests.e2e.test_page import GREEN, shown, sign_up_in
from tests.servers import CaddyServer, chromium, free_port
from tests.servers.caddy import binary
from tests.servers.process import LOOPBACK, Server
from tests.waiting import eventually

pytestmark = [pytest.mark.needs("docker", "caddy", "chromium")]

HOST = "signup.example.org"


class TlsProxy(Server):
    """Caddy with the README's Caddyfile. Only what belongs to this machine differs: the ports, and the certificate
    authority, which is Caddy's own."""

    name = "tls-proxy"

    def __init__(self, gateway: str) -> None:
        self.gateway = gateway
        super().__init__()

    @classmethod
    def missing(cls) -> str | None:
        return CaddyServer.missing()

    def prepare(self) -> None:
        ports = f"https_port {self.port}\nhttp_port {free_port()}\n"
        here = f"{{\nadmin off\nlocal_certs\nskip_install_trust\n{ports}}}\n"
        [caddyfile] = [each for each in code_blocks_of_the_readme() if each.startswith(HOST)]
        assert caddyfile.count("127.0.0.1:8000") == 1
        (self.directory / "Caddyfile").write_text(here + caddyfile.replace("127.0.0.1:8000", self.gateway))

    def command(self) -> Sequence[str | Path]:
        return [binary() or "caddy", "run", "--adapter", "caddyfile", "--config", self.directory / "Caddyfile"]

    def process_env(self) -> dict[str, str]:
        return {"HOME": str(self.directory), "XDG_DATA_HOME": str(self.directory)}

    @property
    def authority(self) -> Path:
        return self.directory / "caddy" / "pki" / "authorities" / "local" / "root.crt"

    def is_ready(self) -> bool:
        try:
            context = ssl.create_default_context(cafile=self.authority)
            with closing(socket.create_connection((LOOPBACK, self.port), timeout=5)) as connection:
                context.wrap_socket(connection, server_hostname=HOST).close()
        except OSError:
            return False
        return True

    @property
    def env(self) -> dict[str, str]:
        return {}

    def curl(self, path: str, *arguments: str) -> str:
        """Send a request to https://signup.example.org, with its certificate verified."""
        to_here = ("--connect-to", f"{HOST}:443:{self.address}", "--cacert", str(self.authority))
        command = [
            "curl",
            "--silent",
            "--show-error",
            "--max-time",
            "60",
            *to_here,
            *arguments,
            f"https://{HOST}{path}",
        ]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def proxy(installation: Installation) -> Iterator[TlsProxy]:
    with TlsProxy(installation.address) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def browser_behind_it(proxy: TlsProxy) -> Iterator[Browser]:
    to_here = f"--host-resolver-rules=MAP {HOST}:443 {proxy.address}"
    with sync_playwright() as playwright:
        browser = chromium.launch(playwright, to_here)
        yield browser
        browser.close()


def test_a_person_signs_up_on_the_page_through_the_proxy(
    installation: Installation, browser_behind_it: Browser
) -> None:
    """The secure cookies and the origin checks of form and WebSocket need the proxy's headers."""
    person = new_person()
    context = browser_behind_it.new_context(base_url=f"https://{HOST}", ignore_https_errors=True)
    page = context.new_page()
    with page.expect_websocket() as opened:
        sign_up_in(page, person)
    assert opened.value.url.startswith(f"wss://{HOST}/ws/signup/")

    expect(page).to_have_url(re.compile(f"^https://{HOST}/login/"))
    assert shown(page)[-1] == GREEN
    page.screenshot(path=ARTIFACTS / "compose-tls-proxy.png")
    context.close()
    assert installation.stored([person.user_id]) == dict.fromkeys(SERVICES, 1)


def test_a_client_of_the_api_signs_up_through_the_proxy_under_its_own_address(
    installation: Installation, proxy: TlsProxy
) -> None:
    form = ("--header", "Content-Type: application/json", "--data", json.dumps(new_person().form))
    stream = proxy.curl(
        "/user", "--no-buffer", "--header", "Accept: text/event-stream", "--interface", "127.0.0.9", *form
    )

    assert "data: " in stream, stream
    last = states_of(stream)[-1]
    assert {service: light["status"] for service, light in last["services"].items()} == GREEN

    def logged() -> list[str]:
        lines = installation.compose("logs", "--no-log-prefix", "gateway").splitlines()
        entries = [json.loads(line[line.index("{") :]) for line in lines if '"uri":"/user"' in line]
        return [each["request"]["client_ip"] for each in entries]

    eventually(lambda: logged()[-1:] == ["127.0.0.9"], what="the gateway sees the client's address, not the proxy's")


def test_without_the_proxy_nothing_works_over_plain_http(installation: Installation) -> None:
    def answer(path: str, *arguments: str) -> str:
        form = ("--silent", "--output", "/dev/null", "--write-out", "%{http_code} %{redirect_url}")
        command = ["curl", *form, *arguments, f"http://{installation.address}{path}"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert answer("/login/?next=/admin/") == f"301 https://{HOST}/login/?next=/admin/"
    assert answer("/user", "--json", json.dumps(new_person().form)).startswith("403")
