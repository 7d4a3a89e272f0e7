"""The settings in .env.example, and in production if one is missing."""

import re
import runpy
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import environ
import pytest
from django.core.exceptions import ImproperlyConfigured

import signup_sync
from signup_sync.configuration.environment import Environment
from signup_sync.local.running import announced
from signup_sync.participants import PARTICIPANTS

ROOT = Path(__file__).resolve().parents[2]
# Read by `manage.py run_local` alone.
OF_THE_LAUNCHER = {"PORT"}
IN_PRODUCTION = {
    "PRODUCTION": "true",
    "SECRET_KEY": "q8Zr-3TkXw1nBv6Yc0LmHs9Pd4Gf7Ja2Re5Uo_ItQxNzWyKbVh",
    "ALLOWED_HOSTS": "signup.example.org",
    "PUBLIC_URL": "https://signup.example.org",
    "AUTH_DATABASE_URL": "postgres://auth@db/auth",
    **{f"{name.upper()}_DATABASE_URL": f"postgres://{name}@db/{name}" for name in PARTICIPANTS},
    "KAFKA_BOOTSTRAP_SERVERS": "kafka:9092",
    "REDIS_URL": "redis://redis:6379/0",
    "GATEWAY_URL": "http://gateway:8080",
}


class RecordedEnvironment(dict[str, str]):
    """An environment that remembers which names were looked up."""

    def __init__(self, values: dict[str, str]) -> None:
        super().__init__(values)
        self.asked: set[str] = set()

    def __getitem__(self, name: str) -> str:
        self.asked.add(name)
        return super().__getitem__(name)


def load_settings(monkeypatch: pytest.MonkeyPatch, values: dict[str, str]) -> tuple[dict[str, Any], set[str]]:
    """The settings that result from exactly this environment, and the names that settings.py looked up in it."""
    environment = RecordedEnvironment(values)
    monkeypatch.setattr(environ.Env, "ENVIRON", environment)
    monkeypatch.setattr(Environment, "read_env", lambda *_: None)  # a developer's own .env is not under test
    loaded = runpy.run_path(str(ROOT / "signup_sync" / "settings.py"))
    return {name: value for name, value in loaded.items() if name.isupper()}, environment.asked


def example_lines() -> Iterator[tuple[str, str, str]]:
    """Name, value, and the comment above it, of each setting in .env.example."""
    comment = ""
    previous_was_setting = False
    for line in (ROOT / ".env.example").read_text().splitlines():
        if setting := re.fullmatch(r"#([A-Z0-9_]+)=(.*)", line):
            yield setting[1], setting[2], comment
        else:
            comment = line if previous_was_setting or not line else f"{comment} {line}"
        previous_was_setting = setting is not None


def test_env_example_names_exactly_the_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _, asked = load_settings(monkeypatch, {"DATA_DIR": str(tmp_path)})
    named = [name for name, _, _ in example_lines()]
    assert len(named) == len(set(named))
    assert set(named) == asked | OF_THE_LAUNCHER


def test_env_example_shows_the_defaults(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shown = {name: value for name, value, comment in example_lines() if "for example" not in comment.lower()}
    assert len(shown) > 20
    by_default, _ = load_settings(monkeypatch, {"DATA_DIR": str(tmp_path)})
    as_shown, _ = load_settings(monkeypatch, {"DATA_DIR": str(tmp_path), **shown})
    assert as_shown == by_default


def test_production_starts_with_all_required_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    settings, _ = load_settings(monkeypatch, IN_PRODUCTION)
    assert settings["SECRET_KEY"] == IN_PRODUCTION["SECRET_KEY"]
    assert settings["SESSION_COOKIE_SECURE"] is True
    assert settings["DEBUG"] is False


@pytest.mark.parametrize("name", sorted(IN_PRODUCTION.keys() - {"PRODUCTION", "SECRET_KEY"}))
def test_production_names_missing_settings(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=name):
        load_settings(monkeypatch, {key: value for key, value in IN_PRODUCTION.items() if key != name})


def test_scim_servers_become_services_with_a_light_a_consumer_and_a_database(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    servers = {"SCIM_SERVERS": "crm=https://crm.example.org/scim/v2/, wiki=http://wiki:8080"}
    tokens = {"SCIM_TOKENS": "crm=abc==,wiki=d-e_f"}
    settings, _ = load_settings(monkeypatch, {"DATA_DIR": str(tmp_path), **servers, **tokens})
    assert settings["SCIM_SERVERS"] == {"crm": "https://crm.example.org/scim/v2", "wiki": "http://wiki:8080"}
    assert settings["SCIM_TOKENS"] == {"crm": "abc==", "wiki": "d-e_f"}
    assert settings["SIGNUP_SERVICES"] == ["auth", *PARTICIPANTS, "crm", "wiki"]
    assert [*settings["EVENT_CONSUMERS"]] == settings["SIGNUP_SERVICES"]
    assert settings["CONSUMED_TOGETHER"] == {"scim": ["crm", "wiki"]}
    assert "scim" in settings["DATABASES"]
    listed, _ = load_settings(monkeypatch, {"DATA_DIR": str(tmp_path), **servers, "SIGNUP_SERVICES": "auth,wiki,chat"})
    assert listed["SIGNUP_SERVICES"] == ["auth", "wiki", "chat", "crm"]


def test_without_scim_servers_there_is_no_scim_service(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings, _ = load_settings(monkeypatch, {"DATA_DIR": str(tmp_path)})
    assert (settings["SCIM_SERVERS"], settings["CONSUMED_TOGETHER"]) == ({}, {})
    assert [*settings["DATABASES"]] == ["default", *PARTICIPANTS]
    assert [*settings["EVENT_CONSUMERS"]] == ["auth", *PARTICIPANTS]
    in_production, _ = load_settings(monkeypatch, IN_PRODUCTION)
    assert "scim" not in in_production["DATABASES"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"SCIM_SERVERS": "crm=https://crm.example.org"}, "SCIM_DATABASE_URL"),
        ({"SCIM_SERVERS": "crm=http://crm.example.org"}, "SCIM_SERVERS has 'http://crm.example.org' for crm"),
    ],
)
def test_production_requires_the_scim_database_and_encryption(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], said: str
) -> None:
    database = {} if said == "SCIM_DATABASE_URL" else {"SCIM_DATABASE_URL": "postgres://scim@db/scim"}
    with pytest.raises(ImproperlyConfigured, match=said):
        load_settings(monkeypatch, {**IN_PRODUCTION, **database, **given})


@pytest.mark.parametrize(
    ("tokens", "said"),
    [("crm=hidden", "no token for wiki"), ("crm=hidden,wiki=hidden,old=hidden", "a token for a server that")],
)
def test_tokens_must_match_the_servers_and_are_never_shown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tokens: str, said: str
) -> None:
    servers = "crm=https://crm.example.org,wiki=https://wiki.example.org"
    with pytest.raises(ImproperlyConfigured, match=f"^SCIM_TOKENS .*{said}") as caught:
        load_settings(monkeypatch, {"DATA_DIR": str(tmp_path), "SCIM_SERVERS": servers, "SCIM_TOKENS": tokens})
    assert "hidden" not in str(caught.value)


def test_env_example_marks_required_settings() -> None:
    marked = {name for name, _, comment in example_lines() if "# *" in comment}
    assert marked == IN_PRODUCTION.keys() - {"PRODUCTION"}


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"short", bytes(range(256)), b"in two\nlines, of which none is a key, to be sure\n"]
)
def test_an_invalid_secret_key_is_reported_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes
) -> None:
    key = tmp_path / "it's here" / "secret_key"
    key.parent.mkdir()
    key.write_bytes(content)
    with pytest.raises(ImproperlyConfigured) as caught:
        load_settings(monkeypatch, {"DATA_DIR": str(key.parent)})
    said = str(caught.value)
    assert str(key) in said
    assert said.endswith(f"rm {shlex.quote(str(key))}")
    assert "\n" not in said


@pytest.mark.parametrize("secret", [{}, {"SECRET_KEY": "a key from elsewhere"}])
def test_data_dir_is_for_its_owner_only(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, secret: dict[str, str]
) -> None:
    data_dir = tmp_path / "made" / "by the settings"
    load_settings(monkeypatch, {"DATA_DIR": str(data_dir), **secret})
    assert data_dir.stat().st_mode & 0o777 == 0o700


def test_commands_use_the_running_installations_addresses_unless_the_environment_names_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    addresses = {
        "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:54321",
        "REDIS_URL": "unix:///with%20space/valkey.sock",
        "GATEWAY_URL": "http://127.0.0.1:8123",
    }
    environment = {"DATA_DIR": str(tmp_path)}
    with announced(tmp_path, addresses):
        settings, _ = load_settings(monkeypatch, environment)
        assert {name: settings[name] for name in addresses} == addresses
        assert settings["KAFKA_EMBEDDED"] is True
        told, _ = load_settings(monkeypatch, environment | {"KAFKA_BOOTSTRAP_SERVERS": "kafka:9092"})
        assert (told["KAFKA_BOOTSTRAP_SERVERS"], told["KAFKA_EMBEDDED"]) == ("kafka:9092", False)
        production, _ = load_settings(monkeypatch, IN_PRODUCTION | environment)
        assert production["REDIS_URL"] == IN_PRODUCTION["REDIS_URL"]
    settings, _ = load_settings(monkeypatch, environment)
    assert settings["KAFKA_BOOTSTRAP_SERVERS"] == ""
    assert settings["REDIS_URL"] == "redis://127.0.0.1:6379/0"


@pytest.mark.parametrize("folder", ["with space", "c++", "c#", "100%", "50%20", "why?", "가"])
def test_databases_are_in_data_dir_whatever_its_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, folder: str
) -> None:
    settings, _ = load_settings(monkeypatch, {"DATA_DIR": str(tmp_path / folder)})
    assert Path(settings["DATABASES"]["chat"]["NAME"]) == tmp_path / folder / "chat.sqlite3"


def test_the_local_secret_is_generated_once_and_readable_only_by_its_owner(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first, _ = load_settings(monkeypatch, {"DATA_DIR": str(tmp_path)})
    second, _ = load_settings(monkeypatch, {"DATA_DIR": str(tmp_path)})
    assert len(first["SECRET_KEY"]) >= 50
    assert first["SECRET_KEY"] == second["SECRET_KEY"]
    assert (tmp_path / "secret_key").stat().st_mode & 0o077 == 0


def test_a_data_dir_that_cannot_be_written_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    for data_dir in (file, file / "below"):
        with pytest.raises(ImproperlyConfigured, match=re.escape(str(data_dir))):
            load_settings(monkeypatch, {"DATA_DIR": str(data_dir)})


def test_the_version_is_defined_once_and_the_documents_agree():
    assert runpy.run_path(str(ROOT / "signup_sync" / "settings.py"))["VERSION"] == signup_sync.__version__
    for contract in ("openapi.yaml", "asyncapi.yaml"):
        stated = re.search(r"^  version: (.+)$", (ROOT / "docs" / contract).read_text(), re.MULTILINE)
        assert stated
        assert stated[1] == signup_sync.__version__
