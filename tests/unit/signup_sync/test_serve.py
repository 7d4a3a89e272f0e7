"""What `manage.py serve` says when it can't have its address."""

import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from tests.servers.process import ROOT


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"port": "70000"}, "70000 is no port: give --port a number from 1 to 65535."),
        ({"port": "-1"}, "-1 is no port: give --port a number from 1 to 65535."),
        ({"port": "http"}, "http is no port: give --port a number from 1 to 65535."),
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
    assert f"Can't listen on 127.0.0.1, port {port}: Address already in use. Name another --host or --port." in line
