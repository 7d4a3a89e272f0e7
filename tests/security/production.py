"""A web process with PRODUCTION=true, as seen by clients and proxies."""

import http.client
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from signup_sync.participants import PARTICIPANTS
from tests.servers import Process, free_port
from tests.servers.process import LOOPBACK, http_status
from tests.stack import MANAGE

PUBLIC_URL = "https://signup.example.org"
# The settings that it needs to start. Nothing listens at these addresses, because no test needs those servers.
ENVIRONMENT = {
    "PRODUCTION": "true",
    "SECRET_KEY": "q8Zr-3TkXw1nBv6Yc0LmHs9Pd4Gf7Ja2Re5Uo_ItQxNzWyKbVh",
    "ALLOWED_HOSTS": "signup.example.org,127.0.0.1",
    "PUBLIC_URL": PUBLIC_URL,
    "AUTH_DATABASE_URL": "postgres://auth@127.0.0.1:1/auth",
    **{f"{service.upper()}_DATABASE_URL": f"postgres://{service}@127.0.0.1:1/{service}" for service in PARTICIPANTS},
    "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
    "REDIS_URL": "redis://127.0.0.1:1/0",
    "GATEWAY_URL": "http://127.0.0.1:1",
    # All of these are this host. The second address is the proxy's; the others are untrusted.
    "TRUSTED_PROXIES": "127.0.0.2",
}
STRANGER, PROXY = LOOPBACK, "127.0.0.2"


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes
    cookies: list[str]


@dataclass(frozen=True)
class Web:
    port: int
    process: Process

    def log(self) -> str:
        return self.process.log()

    def get(self, path: str, *, source: str = STRANGER, method: str = "GET", body: str = "", **headers: str) -> Answer:
        """Return its answer to a peer at the address `source`. A header's name has `_` for `-`."""
        with closing(http.client.HTTPConnection(LOOPBACK, self.port, timeout=30, source_address=(source, 0))) as peer:
            peer.request(method, path, body or None, {name.replace("_", "-"): value for name, value in headers.items()})
            response = peer.getresponse()
            named = [name.lower() for name, _ in response.getheaders() if name.lower() != "set-cookie"]
            assert len(named) == len(set(named)), f"a header stands twice: {named}"
            told = {name.lower(): response.headers[name] for name in response.headers}
            return Answer(response.status, told, response.read(), response.headers.get_all("set-cookie") or [])

    def get_by_https(self, path: str, **more: str) -> Answer:
        """The same, through a proxy that ended TLS."""
        return self.get(path, source=PROXY, X_Forwarded_Proto="https", X_Forwarded_For="198.51.100.7", **more)


@contextmanager
def production_web(directory: Path, **settings: str) -> Iterator[Web]:
    port = free_port()
    environment = ENVIRONMENT | {"DATA_DIR": str(directory / "data")} | settings
    process = Process("web", [*MANAGE, "serve", "--port", str(port)], env=environment, log=directory / "web.log")
    process.start()
    try:
        process.wait_ready(lambda: http_status(port, "/health/live") == 200, 60)
        yield Web(port, process)
    finally:
        process.kill()
