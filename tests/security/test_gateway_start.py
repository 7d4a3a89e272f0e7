"""deploy/gateway.sh: the gateway trusts a proxy on the Docker host, whose address it looks up at start."""

import os
import socket
import struct
import subprocess
from pathlib import Path

import pytest

from tests.servers.process import ROOT

ROUTES = Path("/proc/net/route")


def started_with(tmp_path: Path, **environment: str) -> str:
    """TRUSTED_PROXIES as Caddy gets it."""
    caddy = tmp_path / "caddy"
    caddy.write_text('#!/bin/sh\nprintf "%s" "$TRUSTED_PROXIES"\n')
    caddy.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    command = ["sh", ROOT / "deploy" / "gateway.sh"]
    done = subprocess.run(
        command, env={"PATH": path} | environment, capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout


def default_route() -> str | None:
    for line in ROUTES.read_text().splitlines()[1:] if ROUTES.exists() else []:
        _, destination, gateway, *_ = line.split()
        if destination == "00000000":
            return socket.inet_ntoa(struct.pack("<L", int(gateway, 16)))
    return None


@pytest.mark.skipif(default_route() is None, reason="this machine has no default route")
@pytest.mark.parametrize("environment", [{}, {"TRUSTED_PROXIES": ""}])
def test_the_gateway_trusts_its_networks_host_by_default(tmp_path, environment):
    assert started_with(tmp_path, **environment) == default_route()


def test_trusted_proxies_replace_the_default(tmp_path):
    assert started_with(tmp_path, TRUSTED_PROXIES="192.0.2.1 10.0.0.0/8") == "192.0.2.1 10.0.0.0/8"
