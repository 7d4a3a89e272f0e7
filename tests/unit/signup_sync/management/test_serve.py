"""The errors of `manage.py serve` when its address is not available, and its shutdown."""

import asyncio
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from unittest.mock import Mock

import pytest
from django.core.management import CommandError, call_command

from signup_sync.management.commands.serve import Server, config
from signup_sync.server import connections
from tests.servers.process import ROOT


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"port": "70000"}, "70000 is not a port: give --port a number from 1 to 65535."),
        ({"port": "-1"}, "-1 is not a port: give --port a number from 1 to 65535."),
        ({"port": "http"}, "http is not a port: give --port a number from 1 to 65535."),
        ({"host": "nowhere.invalid"}, "Can't listen on nowhere.invalid, port 8000: "),
        ({"host": "192.0.2.1"}, "Can't listen on 192.0.2.1, port 8000: Cannot assign requested address."),
        ({"fd": 999}, "Can't listen on file descriptor 999: Bad file descriptor."),
    ],
)
def test_a_wrong_address_is_named(options: Mapping[str, str | int], said: str) -> None:
    with pytest.raises(CommandError) as caught:
        call_command("serve", **options)
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)


def test_an_address_in_use_is_reported_in_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "manage.py", "serve", "--port", str(port)],
            cwd=ROOT,
            env={"DATA_DIR": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert f"Can't listen on 127.0.0.1, port {port}: Address already in use. Use another --host or --port." in line


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
def test_only_a_second_ctrl_c_ends_requests_at_once(first: signal.Signals) -> None:
    """uvicorn waits for requests unless `force_exit` is set."""
    server = Server(config(Mock()), Mock(), Mock())
    server.handle_exit(first, None)
    assert (server.should_exit, server.force_exit) == (True, False)
    server.handle_exit(signal.SIGINT, None)
    assert server.force_exit


# --- Closing ----------------------------------------------------------------------------------------------------


class Unread(asyncio.Transport):
    """A transport with so many bytes that its client has not read."""

    def __init__(self, size: int) -> None:
        super().__init__({"peername": ("192.0.2.1", 1)})
        self.calls: list[str] = []
        self._size = size

    def close(self) -> None:
        self.calls.append("close")

    def abort(self) -> None:
        self.calls.append("abort")

    def get_write_buffer_size(self) -> int:
        return self._size


@pytest.mark.parametrize(("size", "calls"), [(1, ["close", "abort"]), (0, ["close"])])
async def test_closing_a_connection_waits_for_its_client_for_a_limited_time(
    monkeypatch, size: int, calls: list[str]
) -> None:
    monkeypatch.setattr(connections, "CLOSES_WITHIN", 0.01)
    loop = asyncio.get_running_loop()
    transport = connections.ClosingTransport(unread := Unread(size), loop)
    assert transport.get_extra_info("peername") == ("192.0.2.1", 1)
    transport.close()
    assert unread.calls == ["close"]
    # The loop calls in the order of time: by then the other timer has fired.
    later = loop.create_future()
    loop.call_later(0.02, later.set_result, None)
    await later
    assert unread.calls == calls
