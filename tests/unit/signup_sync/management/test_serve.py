"""What `manage.py serve` says when it can't have its address, and how it writes."""

import asyncio
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from signup_sync.server.protocols import JOINED_MAX, Joined
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


def test_an_address_in_use_is_said_in_one_line(tmp_path: Path) -> None:
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


# --- Writing ----------------------------------------------------------------------------------------------------


class Sink(asyncio.Transport):
    """Keeps what is written, each write by itself."""

    def __init__(self) -> None:
        super().__init__({"peername": ("192.0.2.1", 1)})
        self.written: list[bytes] = []
        self.is_closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.is_closed
        self.written.append(bytes(data))

    def close(self) -> None:
        self.is_closed = True

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self.is_closed


async def test_what_one_turn_of_the_loop_writes_goes_in_one_piece() -> None:
    joined = Joined(sink := Sink(), asyncio.get_running_loop())
    for piece in (b"head ", b"body ", b"end"):
        joined.write(piece)
    assert sink.written == []
    await asyncio.sleep(0)
    joined.write(b"more")
    await asyncio.sleep(0)
    assert sink.written == [b"head body end", b"more"]
    assert joined.get_extra_info("peername") == ("192.0.2.1", 1)


async def test_much_is_written_at_once_so_that_a_slow_reader_is_noticed() -> None:
    joined = Joined(sink := Sink(), asyncio.get_running_loop())
    joined.write(b"head")
    joined.write(bytes(JOINED_MAX))
    assert [len(each) for each in sink.written] == [JOINED_MAX + 4]
    await asyncio.sleep(0)
    assert len(sink.written) == 1


async def test_what_was_written_before_the_end_is_sent_and_nothing_after_it() -> None:
    joined = Joined(sink := Sink(), asyncio.get_running_loop())
    joined.write(b"last words")
    joined.close()
    assert (sink.written, sink.is_closed) == ([b"last words"], True)
    joined.write(b"lost")
    await asyncio.sleep(0)
    assert sink.written == [b"last words"]
