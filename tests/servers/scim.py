"""A SCIM server in a separate process: scim2-server's application with faults that tests inject.

`python -m tests.servers.scim PORT TOKEN` runs it. Below /control, tests inject faults, read the received requests, and
read and change the users directly.
"""

import contextlib
import io
import json
import socket
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from wsgiref.util import setup_testing_defaults

from tests.servers.process import LOOPBACK, Server, http_status

TOKEN = "token-of-the-test~1"


class ScimTestServer(Server):
    name = "scim"

    @classmethod
    def missing(cls) -> str | None:
        return None

    def command(self) -> Sequence[str | Path]:
        return [sys.executable, "-m", "tests.servers.scim", str(self.port), TOKEN]

    def is_ready(self) -> bool:
        return http_status(self.port, "/control/requests") == 200

    @property
    def env(self) -> dict[str, str]:
        return {"SCIM_SERVERS": f"crm={self.url}", "SCIM_TOKENS": f"crm={TOKEN}"}

    @property
    def url(self) -> str:
        return f"http://{self.address}/v2"

    def reset(self) -> None:
        """Forget all users, requests and faults."""
        self._control("POST", "reset", {})

    def misbehave(
        self, *methods: str, how: str, times: int = 1, does: bool = False, about: str = "", **more: Any
    ) -> None:
        """Answer the next `times` requests of these methods wrongly; with `about`, only requests that contain that
        text. With `does`, the server first carries out the request.
        """
        fault = {"methods": methods, "how": how, "times": times, "does": does, "about": about, **more}
        self._control("POST", "faults", fault)

    def demand_unique_emails(self) -> None:
        """Refuse an address that another user has, as many servers do, until the next reset."""
        self._control("POST", "unique-emails", {})

    def behave(self) -> None:
        """Drop the faults, and answer the requests that hang."""
        self._control("DELETE", "faults", {})

    @property
    def requests(self) -> list[str]:
        """The methods of the received requests, with the first part of their paths."""
        return list(self._control("GET", "requests"))

    @property
    def users(self) -> list[dict[str, Any]]:
        return list(self._control("GET", "users"))

    def add(self, **attributes: Any) -> str:
        """Add a user as the server's own administrator would, and return its id."""
        return str(self.scim("POST", "/Users", {"schemas": [USER], **attributes})["id"])

    def scim(self, method: str, path: str, body: Any = None) -> Any:
        return self._request(method, f"/v2{path}", body, {"X-Unrecorded": "1"})

    def _control(self, method: str, path: str, body: Any = None) -> Any:
        return self._request(method, f"/control/{path}", body, {})

    def _request(self, method: str, path: str, body: Any, headers: dict[str, str]) -> Any:
        request = urllib.request.Request(
            f"http://{self.address}{path}",
            data=None if body is None else json.dumps(body).encode(),
            method=method,
            headers={"Content-Type": "application/scim+json", "Authorization": f"Bearer {TOKEN}", **headers},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            text = answer.read()
        return json.loads(text) if text else None


USER = "urn:ietf:params:scim:schemas:core:2.0:User"


# --- The process -------------------------------------------------------------------------------------------------


class _Misbehaving:
    """The state of the process: scim2-server's application, the faults, and the received requests."""

    def __init__(self, token: str) -> None:
        from scim2_models import ScimProvider
        from scim2_server.memory import InMemoryStorage
        from scim2_server.testserver.application import BearerTokenApplication
        from scim2_server.utils import load_default_resource_types, load_default_schemas
        from scim2_server.utils import load_default_service_provider_config as load_config

        self._token = token
        self._provider = ScimProvider.from_discovery(
            load_default_schemas().values(), load_default_resource_types().values(), config=load_config()
        )
        self._storage, self._application = InMemoryStorage, BearerTokenApplication
        self.lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        self.requests: list[str] = []
        self.faults: list[dict[str, Any]] = []
        self.released = threading.Event()
        self.has_unique_emails = False
        self.storage = self._storage()
        self.application = self._application(self.storage, self._provider, bearer_tokens=[self._token])

    def fault_for(self, method: str, text: str) -> dict[str, Any] | None:
        with self.lock:
            for fault in self.faults:
                if method in fault["methods"] and fault["about"] in text and fault["times"] > 0:
                    fault["times"] -= 1
                    return fault
        return None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    kept: _Misbehaving

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path.startswith("/control/"):
            self.control(self.path.removeprefix("/control/"), json.loads(body) if body else None)
            return
        fault = None
        if not self.headers.get("X-Unrecorded"):
            text = unquote(self.path) + body.decode(errors="replace")
            with self.kept.lock:
                self.kept.requests.append(f"{self.command} /{self.path.split('?')[0].split('/')[2]}")
            fault = self.kept.fault_for(self.command, text)
        if fault and fault["how"] == "slow":
            self.kept.released.wait(fault["seconds"])
            fault = None
        if fault is None:
            with contextlib.suppress(OSError):
                self.answer(*self.call(body))
            return
        if fault["does"]:
            self.call(body)
        with contextlib.suppress(OSError):
            self.misbehave(fault)

    do_GET = do_POST = do_PATCH = do_DELETE = handle_any  # noqa: N815 - the names of BaseHTTPRequestHandler

    def control(self, path: str, body: Any) -> None:
        kept = self.kept
        answer: Any = None
        match self.command, path:
            case "POST", "reset":
                kept.released.set()
                kept.reset()
            case "POST", "unique-emails":
                kept.has_unique_emails = True
            case "POST", "faults":
                kept.faults.append(body)
            case "DELETE", "faults":
                kept.faults.clear()
                kept.released.set()
                kept.released = threading.Event()
            case "GET", "requests":
                answer = kept.requests
            case "GET", "users":
                answer = [each.model_dump() for each in kept.storage.resources]
        self.answer(200, {"Content-Type": "application/json"}, json.dumps(answer, default=str).encode())

    def takes_an_email(self, body: bytes) -> bool:
        """Whether the request gives a user an address that another user has."""
        document = json.loads(body) if body else {}
        operations = [each["value"] for each in document.get("Operations", ()) if each.get("path") == "emails"]
        wanted = [entry["value"] for entries in (document.get("emails", ()), *operations) for entry in entries]
        others = [each.model_dump() for each in self.kept.storage.resources if each.id != self.path.split("/")[-1]]
        return any(entry["value"] in wanted for other in others for entry in other.get("emails") or ())

    def call(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        """Call scim2-server's application."""
        if self.kept.has_unique_emails and self.takes_an_email(body):
            conflict = {"schemas": ["urn:ietf:params:scim:api:messages:2.0:Error"], "status": "409"}
            return 409, {"Content-Type": "application/scim+json"}, json.dumps(conflict).encode()
        path, _, query = self.path.partition("?")
        environ: dict[str, Any] = {
            "REQUEST_METHOD": self.command,
            "PATH_INFO": unquote(path).encode().decode("latin-1"),
            "QUERY_STRING": query,
            "wsgi.input": io.BytesIO(body),
            "CONTENT_LENGTH": str(len(body)),
            "CONTENT_TYPE": self.headers.get("Content-Type") or "",
            **{f"HTTP_{name.upper().replace('-', '_')}": value for name, value in self.headers.items()},
        }
        setup_testing_defaults(environ)
        begun: list[Any] = []
        application: Any = self.kept.application
        content = b"".join(application(environ, lambda *response: begun.extend(response)))
        return int(begun[0].split()[0]), dict(begun[1]), content

    def answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() != "content-length":
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def misbehave(self, fault: dict[str, Any]) -> None:
        json_type = {"Content-Type": "application/scim+json"}
        status = fault.get("status", 200)
        match fault["how"]:
            case "status":
                self.answer(status, fault.get("headers", {}), fault.get("content", "").encode())
            case "html":
                self.answer(status, {"Content-Type": "text/html"}, b"<!doctype html><title>Log in</title>")
            case "empty":
                self.answer(status, json_type, b"")
            case "json":
                self.answer(status, json_type, json.dumps(fault["content"]).encode())
            case "huge":
                self.answer(status, json_type, b'"' + b"x" * 30_000_000 + b'"')
            case "close":
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True
            case "hang":
                self.kept.released.wait(60)
                self.close_connection = True
            case "drip":
                # Headers that never end, a byte at a time.
                self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
                while not self.kept.released.wait(0.2):
                    self.wfile.write(b"x")
                    self.wfile.flush()
                self.close_connection = True
            case unknown:
                raise ValueError(unknown)

    def log_message(self, *_: object) -> None:
        pass


def main(port: int, token: str) -> None:
    _Handler.kept = _Misbehaving(token)
    ThreadingHTTPServer((LOOPBACK, port), _Handler).serve_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
