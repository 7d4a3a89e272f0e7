"""compose.yaml and the Dockerfile, as far as they can be judged without containers.

tests/e2e starts the same commands with the same environment outside containers.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.conf import settings
from django.core.management import get_commands

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = ROOT / "compose.yaml"
ROLES = ("web", "auth", "auth-results", "chat", "customer", "relay", "dead-letters", "migrate")
SERVERS = ("gateway", "postgres", "kafka", "redis")
SECRETS = (
    "SECRET_KEY",
    "POSTGRES_PASSWORD",
    "AUTH_DATABASE_PASSWORD",
    "CHAT_DATABASE_PASSWORD",
    "CUSTOMER_DATABASE_PASSWORD",
)
ENVIRONMENT = {name: f"test-{name.lower()}" for name in SECRETS} | {
    "SECRET_KEY": "q8Zr-3TkXw1nBv6Yc0LmHs9Pd4Gf7Ja2Re5Uo_ItQxNzWyKbVh",
    "PUBLIC_URL": "https://signup.example.org",
    "PUBLIC_HOSTS": "signup.example.org",
}


def podman_compose(environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """`podman-compose config`, away from any .env file's reach.

    It asks podman for its version before it does anything, and needs podman for nothing else here: where that is not
    installed, Python says its own.
    """
    command = [
        *(Path(sys.executable).with_name("podman-compose"), "--podman-path", shutil.which("podman") or sys.executable),
        *("--env-file", os.devnull, "-f", COMPOSE, "config"),
    ]
    system = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return subprocess.run(command, env=system | environment, capture_output=True, text=True, check=False, timeout=60)


@cache
def services() -> dict[str, dict[str, Any]]:
    done = podman_compose(ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    return yaml.safe_load(done.stdout)["services"]


def environment_of(role: str) -> dict[str, str]:
    return services()[role]["environment"]


def test_the_file_names_every_role_and_server():
    assert services().keys() == {*ROLES, *SERVERS}
    assert services()["auth"]["deploy"] == {"replicas": 2}


@pytest.mark.parametrize("name", ENVIRONMENT)
def test_without_one_of_the_secrets_it_is_refused_and_says_which(name):
    done = podman_compose({key: value for key, value in ENVIRONMENT.items() if key != name})

    assert done.returncode != 0
    assert name in done.stderr


def test_no_secret_stands_in_the_file():
    for service in yaml.safe_load(COMPOSE.read_text())["services"].values():
        for name, value in service.get("environment", {}).items():
            if name in SECRETS:
                assert value.startswith(f"${{{name}:?")
            elif "@" in value and value.startswith("postgres://"):
                user, _, password = value.removeprefix("postgres://").partition("@")[0].partition(":")
                assert user == "none" or password.startswith(f"${{{user.upper()}_DATABASE_PASSWORD:?")


@pytest.mark.parametrize("role", ROLES)
def test_every_command_is_one_that_exists(role):
    first, *rest = services()[role]["command"]
    script, command, *arguments = rest
    assert (first, script) == ("python", "manage.py")
    assert command in get_commands()
    if command == "consume_events":
        assert arguments[0] in settings.EVENT_CONSUMERS


@pytest.mark.parametrize("role", ROLES)
def test_every_role_starts_with_its_environment_alone(role, tmp_path):
    """Settings, applications and the command itself load; in production whatever is obligatory and missing raises."""
    _, *rest = services()[role]["command"]
    command = ["-c", "import signup_sync.asgi"] if rest[1] == "serve" else [rest[0], "help", rest[1]]
    environment = environment_of(role) | {"DATA_DIR": str(tmp_path / "data")}

    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=60
    )

    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "data").exists(), "its file system is read-only"


@pytest.mark.parametrize("role", ROLES)
def test_settings_read_every_variable_that_a_role_is_given(role):
    source = (ROOT / "signup_sync" / "settings.py").read_text()
    read = set(re.findall(r"[(\s]\"([A-Z][A-Z0-9_]+)\"", source))
    read |= {f"{service}_DATABASE_URL" for service in ("AUTH", "CHAT", "CUSTOMER")}

    assert environment_of(role).keys() <= read


def test_a_participant_reaches_no_database_but_its_own():
    reachable = {
        role: {name for name, value in environment_of(role).items() if "DATABASE_URL" in name and "none" not in value}
        for role in ROLES
    }
    every = {"AUTH_DATABASE_URL", "CHAT_DATABASE_URL", "CUSTOMER_DATABASE_URL"}
    assert reachable == {
        "web": every,
        "auth": every,
        "migrate": every,
        "auth-results": {"AUTH_DATABASE_URL"},
        "relay": {"AUTH_DATABASE_URL"},
        "dead-letters": {"AUTH_DATABASE_URL"},
        "chat": {"CHAT_DATABASE_URL"},
        "customer": {"CUSTOMER_DATABASE_URL"},
    }


@pytest.mark.parametrize("name", [*ROLES, *SERVERS])
def test_every_service_is_contained(name):
    service = services()[name]

    assert service["user"].split(":")[0] not in ("root", "0")
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert service["restart"] in ("unless-stopped", "on-failure")
    assert service["read_only"] is (name != "kafka")
    assert ("ports" in service) is (name == "gateway")
    assert ("outside" in service["networks"]) is (name in ("gateway", "web", "auth"))
    assert service["stop_grace_period"]


def test_who_holds_streams_misses_a_dead_client_soon():
    """docs/adr/0015; tests/chaos/test_leaks.py shows what it does."""
    holding = {name: service["sysctls"] for name, service in services().items() if "sysctls" in service}
    assert holding == {name: {"net.ipv4.tcp_retries2": "6"} for name in ("gateway", "web", "auth")}


@pytest.mark.parametrize("name", [*ROLES, *SERVERS])
def test_every_long_running_service_has_a_health_check_of_its_own(name):
    check = services()[name]["healthcheck"]
    if name == "migrate":
        assert check == {"disable": True}
        return
    assert check["test"][0] == "CMD"
    if name not in SERVERS:
        port = "8000" if name in ("web", "auth") else environment_of(name)["HEALTH_PORT"]
        assert f"http://127.0.0.1:{port}/health/ready" in check["test"][-1]


def test_what_is_mounted_and_copied_is_there():
    mounted = {volume.split(":")[0] for service in services().values() for volume in service.get("volumes", [])}
    for path in mounted - {"postgres", "kafka"}:
        assert (ROOT / path).is_file()
    copied = re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    assert {*settings.SERVICE_DATABASES, "authsvc", "signup_sync", "templates", "manage.py"} <= {*copied}


def test_the_image_runs_without_root_from_hashed_requirements():
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    last_stage = lines[max(number for number, line in enumerate(lines) if line.startswith("FROM ")) :]

    users = [line.split()[1] for line in last_stage if line.startswith("USER ")]
    assert users == [services()["web"]["user"]]
    assert any("--require-hashes" in line for line in lines)
    assert not any(line.startswith("COPY") and "--from=build" not in line for line in last_stage)
