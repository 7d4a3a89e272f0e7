"""The errors of `make run` when it can't start, and the environment of the processes that it starts."""

import shutil
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from django.conf import LazySettings
from django.db import connections
from pytest_django.plugin import DjangoDbBlocker
from redis.asyncio.connection import parse_url

from signup_sync.local import databases, installation
from signup_sync.local.preconditions import CannotStart, hold, port_number, reserve_port, write_address
from signup_sync.local.running import announced, running_settings
from signup_sync.participants import PARTICIPANTS
from signup_sync.routers import service_of


def database_with_rows(file: Path) -> bytes:
    connection = sqlite3.connect(file)
    connection.execute("CREATE TABLE t (a)")
    connection.executemany("INSERT INTO t VALUES (?)", [("x" * 500,)] * 500)
    connection.commit()
    connection.close()
    return file.read_bytes()


BREAKS: dict[str, Callable[[bytes], bytes]] = {
    "another kind of file": lambda _: b"no database at all, but some other file\n" * 200,
    "cut off": lambda content: content[: len(content) // 2],
    "overwritten in the middle": lambda content: content[:40_000] + bytes(60_000) + content[100_000:],
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_database_is_reported_with_the_remedy(tmp_path: Path, name: str) -> None:
    file = tmp_path / "it's auth's.sqlite3"
    file.write_bytes(BREAKS[name](database_with_rows(file)))
    with pytest.raises(CannotStart) as caught:
        databases.check_sqlite(file)
    said = str(caught.value)
    assert str(file) in said
    assert said.endswith(".broken'")  # quoted for a shell, because of the name
    assert "\n" not in said


def test_sound_missing_and_empty_databases_pass(tmp_path: Path) -> None:
    sound = tmp_path / "100% c#?.sqlite3"
    database_with_rows(sound)
    empty = tmp_path / "empty.sqlite3"
    empty.touch()
    for file in (sound, empty, tmp_path / "missing.sqlite3"):
        databases.check_sqlite(file)
    assert not (tmp_path / "missing.sqlite3").exists()


@pytest.mark.parametrize(("theirs", "ours"), [("chat", "default"), ("default", "chat")])
def test_the_database_of_another_service_is_reported_with_the_remedy(
    databases_in: Callable[[Path], None], tmp_path: Path, theirs: str, ours: str
) -> None:
    databases_in(tmp_path)
    databases.prepare_databases([].append)
    file = tmp_path / f"{service_of(ours)}.sqlite3"
    shutil.copy(tmp_path / f"{service_of(theirs)}.sqlite3", file)
    with pytest.raises(CannotStart) as caught:
        databases.prepare_databases([].append)
    said = str(caught.value)
    assert f"The database {file} is not that of {service_of(ours)}" in said
    assert said.endswith(f"mv {file} {file}.broken")
    assert "\n" not in said


def test_databases_are_called_as_their_services(databases_in: Callable[[Path], None], tmp_path: Path) -> None:
    databases_in(tmp_path)
    told: list[str] = []
    databases.prepare_databases(told.append)
    services = ("auth", *PARTICIPANTS, "scim")
    assert told == [f"Preparing the database of {service} ..." for service in services]
    databases.prepare_databases(told.append)
    assert len(told) == len(services)


@pytest.fixture
def databases_in(
    django_db_blocker: DjangoDbBlocker, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[Path], None]]:
    """Point Django's connections to SQLite files in a folder, as in a local installation."""

    def point(folder: Path) -> None:
        for alias in connections:
            connections[alias].close()
            name = str(folder / f"{service_of(alias)}.sqlite3")
            monkeypatch.setitem(connections[alias].settings_dict, "NAME", name)

    with django_db_blocker.unblock():
        yield point
        for connection in connections.all():
            connection.close()


@pytest.mark.parametrize("text", ["", "-1", "65536", "8000 ", "http", "٣"])
def test_an_invalid_port_is_refused(text: str) -> None:
    with pytest.raises(CannotStart, match="PORT="):
        port_number(text)


def test_a_port_in_use_is_reported_with_the_next_one(tmp_path: Path) -> None:
    with reserve_port(0) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(CannotStart, match=rf"Port {port} is in use.*PORT={port + 1} make run"):
            reserve_port(port)


def test_a_port_is_free_again_at_once(tmp_path: Path) -> None:
    """Connections in TIME_WAIT don't delay the next start."""
    with reserve_port(0) as listener:
        port = listener.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", port))
        server, _ = listener.accept()
        server.close()
        client.close()
    reserve_port(port).close()


def test_a_data_directory_is_locked_by_one_installation(tmp_path: Path) -> None:
    with hold(tmp_path / "var") as lock:
        write_address(lock, "http://127.0.0.1:8000/")
        with pytest.raises(CannotStart, match=r"is already running: http://127.0.0.1:8000/"):
            hold(tmp_path / "var")
    hold(tmp_path / "var").close()


def test_the_addresses_of_a_running_installation_are_known_until_it_ends(tmp_path: Path) -> None:
    assert running_settings(tmp_path) == {}
    addresses = {"REDIS_URL": "unix:///a%20path/with=signs/s", "GATEWAY_URL": "http://127.0.0.1:8000"}
    with announced(tmp_path, addresses):
        assert running_settings(tmp_path) == addresses
        assert running_settings(tmp_path) == addresses
    assert running_settings(tmp_path) == {}


def test_a_file_left_by_a_killed_installation_is_ignored_and_replaced(tmp_path: Path) -> None:
    killed = """
import os, pathlib, sys
from signup_sync.local.running import announced
with announced(pathlib.Path(sys.argv[1]), {"GATEWAY_URL": "http://127.0.0.1:8000"}):
    os._exit(0)
"""
    subprocess.run([sys.executable, "-c", killed, tmp_path], check=True)
    assert (tmp_path / "running.env").read_text() == "GATEWAY_URL=http://127.0.0.1:8000\n"
    assert running_settings(tmp_path) == {}
    with announced(tmp_path, {"GATEWAY_URL": "http://127.0.0.1:8001"}):
        assert running_settings(tmp_path) == {"GATEWAY_URL": "http://127.0.0.1:8001"}


def test_a_data_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CannotStart, match=r"file/var can't be written \(Not a directory\)"):
        hold(tmp_path / "file" / "var")


@pytest.mark.parametrize("folder", ["short", "c# 100%?+", "d" * 150])
def test_the_path_of_valkeys_socket_fits_and_survives_its_url(tmp_path: Path, folder: str) -> None:
    data_dir = tmp_path / folder
    data_dir.mkdir()
    with installation.valkey_socket(data_dir) as path:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.bind(str(path))
        settings = installation.addresses("127.0.0.1:9092", path, "http://127.0.0.1:8000/")
        assert parse_url(settings["REDIS_URL"])["path"] == str(path)
    assert not path.exists()
    assert (path.parent == data_dir) == (folder != "d" * 150)


def test_the_front_posts_to_the_address_that_people_get(tmp_path: Path) -> None:
    settings = installation.addresses("127.0.0.1:9092", tmp_path / "s", "http://127.0.0.1:8123/")
    assert urlsplit(settings["GATEWAY_URL"])[1:3] == ("127.0.0.1:8123", "")


def test_each_role_of_production_is_started(settings: LazySettings) -> None:
    settings.OPENSEARCH_URL = "http://127.0.0.1:9200"
    with reserve_port(0) as listener:
        fd = listener.fileno()
        roles = [*installation.our_roles(listener), *installation.late_roles()]
    commands = [" ".join(role.command) for role in roles]
    for wanted in (
        f"serve --fd {fd}",
        "consume_events auth",
        *(f"consume_events {service}" for service in PARTICIPANTS),
        "relay_signups",
        "collect_dead_letters",
        "index_events",
    ):
        assert sum(command.endswith(wanted) for command in commands) == 1
