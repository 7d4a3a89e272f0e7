"""compose.yaml and the Dockerfile, as far as they can be judged without containers.

tests/e2e starts the same commands with the same environment outside containers, and tests/compose the containers.
"""

import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.conf import settings
from django.core.management import get_commands

from signup_sync.participants import PARTICIPANTS

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = ROOT / "compose.yaml"
WEB = ("web", "auth")
AUTH_WORKERS = ("auth-results", "relay", "dead-letters", "purge")
WORKERS = (*AUTH_WORKERS, *PARTICIPANTS, "scim", "search")
# These run once, before the others.
ONCE = ("migrate", "set-up-kafka")
ROLES = (*WEB, *WORKERS, *ONCE)
SERVERS = ("gateway", "postgres", "kafka", "redis")
# Only with the profiles `observe` and `tools`.
TOOLS = ("opensearch", "dashboards", "prometheus", "grafana", "kafka-ui")
OF_PROFILES = {
    "scim": {"scim"},
    "observe": {"search", "opensearch", "dashboards", "dashboards-import", "prometheus", "grafana"},
    "tools": {"kafka-ui"},
}
# Services that run once and then exit.
ENDING = (*ONCE, "databases", "dashboards-import")
EVERYTHING = (*ROLES, *SERVERS, *TOOLS, "databases", "dashboards-import")
SECRETS = (
    "SECRET_KEY",
    "POSTGRES_PASSWORD",
    *(
        f"{service}_{kind}_PASSWORD"
        for service in ("AUTH", *map(str.upper, PARTICIPANTS), "SCIM")
        for kind in ("DATABASE", "OWNER")
    ),
    *(
        f"KAFKA_{user}_PASSWORD"
        for user in ("ADMIN", "AUTH", *map(str.upper, PARTICIPANTS), "SCIM", "SEARCH", "VIEWER")
    ),
    "REDIS_AUTH_PASSWORD",
    "REDIS_PARTICIPANT_PASSWORD",
    "GRAFANA_ADMIN_PASSWORD",
    "UI_LOGIN_PASSWORD",
)
ENVIRONMENT = {name: f"test-{name.lower()}" for name in SECRETS} | {
    "SECRET_KEY": "q8Zr-3TkXw1nBv6Yc0LmHs9Pd4Gf7Ja2Re5Uo_ItQxNzWyKbVh",
    "PUBLIC_URL": "https://signup.example.org",
    "COMPOSE_PROFILES": "scim,observe,tools",
}


def resolved(environment: Mapping[str, str]) -> dict[str, Any]:
    """Return compose.yaml as Docker Compose reads it with these variables. tests/compose checks that it does.

    Raises LookupError with the name of a required variable that is missing.
    """
    file = yaml.safe_load(COMPOSE.read_text())
    active = {None, *environment.get("COMPOSE_PROFILES", "").split(",")}
    services = {name: _interpolated(service, environment) for name, service in file["services"].items()}
    for service in services.values():
        for part in {"command", "entrypoint"} & service.keys():
            service[part] = shlex.split(service[part]) if isinstance(service[part], str) else service[part]
    file["services"] = {name: each for name, each in services.items() if active & {*each.get("profiles", [None])}}
    return file


def _interpolated(node: Any, environment: Mapping[str, str]) -> Any:
    def value(found: re.Match[str]) -> str:
        name, operator, rest = found["name"], found["operator"], found["rest"]
        if operator == ":?" and not environment.get(name):
            raise LookupError(f"{name}: {rest}")
        return environment.get(name) or rest or "" if name else "$"

    if isinstance(node, str):
        return re.sub(r"\$\{(?P<name>\w+)((?P<operator>:[-?])(?P<rest>[^}]*))?\}|\$\$", value, node)
    if isinstance(node, list):
        return [_interpolated(each, environment) for each in node]
    if isinstance(node, dict):
        return {name: _interpolated(each, environment) for name, each in node.items()}
    return node


@cache
def services() -> dict[str, dict[str, Any]]:
    return resolved(ENVIRONMENT)["services"]


def environment_of(role: str) -> dict[str, str]:
    return services()[role]["environment"]


def test_the_file_names_every_role_and_server():
    assert services().keys() == {*EVERYTHING}
    assert services()["auth"]["deploy"] == {"replicas": 2}


@pytest.mark.parametrize("name", ["SECRET_KEY", "AUTH_OWNER_PASSWORD", "KAFKA_CHAT_PASSWORD", "PUBLIC_URL"])
def test_a_missing_secret_is_refused_and_named(name):
    with pytest.raises(LookupError, match=name):
        resolved({key: value for key, value in ENVIRONMENT.items() if key != name})


@pytest.mark.parametrize("chosen", ["", "scim", "observe", "tools"])
def test_a_profile_adds_its_services_and_no_other(chosen):
    others = set().union(*(names for profile, names in OF_PROFILES.items() if profile != chosen))
    chosen_services = resolved(ENVIRONMENT | {"COMPOSE_PROFILES": chosen})["services"]
    assert chosen_services.keys() == services().keys() - others


def test_only_the_consumers_of_scim_servers_get_their_tokens():
    given = {"SCIM_SERVERS": "crm=https://crm.example.org", "SCIM_TOKENS": "crm=given-token"}
    environments = {
        name: each.get("environment", {}) for name, each in resolved(ENVIRONMENT | given)["services"].items()
    }
    assert [name for name, each in environments.items() if "given-token" in json.dumps(each)] == ["scim"]
    assert {environments[role]["SCIM_SERVERS"] for role in ROLES} == {"crm=https://crm.example.org"}


def test_the_file_contains_no_secret():
    """Every value that is or contains a secret takes it from a required environment variable."""
    text = COMPOSE.read_text()
    assert set(re.findall(r"\$\{([A-Z0-9_]+_(?:KEY|PASSWORD)):\?", text)) == {*SECRETS}
    values = re.findall(r'(?m)^ +(?:[A-Z_]*PASSWORD|SECRET_KEY|REDISCLI_AUTH): (\S+)|[a-z_]+="([^"]+)"', text)
    values += re.findall(r'"sasl.(pass)word": "([^"]+)"', text)
    assert len(values) > 20
    for found in values:
        assert found[-1].startswith("${") or found[0].startswith("${") or found[1] in ("admin", "viewer"), found
    for user, password in re.findall(r"://(\w+):([^@\s]+)@", text):
        assert password.startswith("${"), user


def test_make_secrets_adds_missing_secrets_and_changes_no_existing_one(tmp_path):
    shutil.copytree(ROOT / "deploy", tmp_path / "deploy")
    shutil.copy(COMPOSE, tmp_path)
    env_file = tmp_path / ".env"
    env_file.write_text("SECRET_KEY=kept\n")
    for _ in range(2):
        subprocess.run(["sh", tmp_path / "deploy" / "make-secrets.sh"], check=True, timeout=60)

    made = dict(line.split("=") for line in env_file.read_text().splitlines())

    assert made.keys() == {*SECRETS}
    assert made["SECRET_KEY"] == "kept"
    assert len(set(made.values())) == len(SECRETS)
    assert all(re.fullmatch(r"[0-9a-f]{64}", made[name]) for name in SECRETS if name != "SECRET_KEY")


@pytest.mark.parametrize("role", ROLES)
def test_every_command_exists(role):
    first, *rest = services()[role]["command"]
    script, command, *arguments = rest
    assert (first, script) == ("python", "manage.py")
    assert command in get_commands()
    if command == "consume_events":
        assert arguments[0] in {*settings.EVENT_CONSUMERS, "scim"}


@pytest.mark.parametrize("role", ROLES)
def test_every_role_starts_with_its_environment_only(role, tmp_path):
    """Settings, applications and the command itself load; in production, a missing mandatory setting raises."""
    _, *rest = services()[role]["command"]
    command = ["-c", "import signup_sync.asgi"] if rest[1] == "serve" else [rest[0], "help", rest[1]]
    environment = environment_of(role) | {"DATA_DIR": str(tmp_path / "data")}

    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=60
    )

    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "data").exists(), "its file system is read-only"


# The settings that compose.yaml sets itself, according to .env.example.
EXAMPLE = (ROOT / ".env.example").read_text()
DECIDED_HERE = re.sub(r"\n# ", " ", EXAMPLE).split("whatever the file says:")[1].split(". All")[0]
DECIDED = frozenset(
    re.findall(r"(?<![*_A-Z])[A-Z][A-Z_]+[A-Z]", DECIDED_HERE) + re.findall(r"(?m)^#([A-Z0-9]+_DATABASE_URL)=", EXAMPLE)
)
# They reach only the roles that need them, or under another name. The tests below define which.
PASSED_TO_SOME = frozenset(
    {
        "SECRET_KEY",
        "SECRET_KEY_FALLBACKS",
        "EMAIL_URL",
        "TRUSTED_PROXIES",
        "ALLOWED_HOSTS",
        "SCIM_TOKENS",
        "OPENSEARCH_URL",
        "EVENT_SEARCH",
    }
)


def test_every_documented_setting_reaches_the_roles():
    """A setting that is missing here would silently have no effect in .env: give it a line in x-settings."""
    documented = set(re.findall(r"^#([A-Z][A-Z0-9_]*)=", EXAMPLE, re.MULTILINE))
    assert documented >= DECIDED
    passed = documented - DECIDED - PASSED_TO_SOME
    given = resolved(ENVIRONMENT | {name: f"given-{name}" for name in documented})["services"]
    for role in ROLES:
        environment = given[role]["environment"]
        assert {name: environment.get(name) for name in passed} == {name: f"given-{name}" for name in passed}
        assert environment["EVENT_SEARCH"] == ("true" if role in ("search", "set-up-kafka") else "given-EVENT_SEARCH")
        assert "given-ALLOWED_HOSTS" in environment["ALLOWED_HOSTS"].split(",")
        assert not any(environment.get(name) == f"given-{name}" for name in DECIDED)
    assert given["gateway"]["environment"]["TRUSTED_PROXIES"] == "given-TRUSTED_PROXIES"


def test_an_unset_setting_is_empty():
    for role in ROLES:
        given = {name: value for name, value in environment_of(role).items() if value}
        assert given.keys() <= {*DECIDED, *PASSED_TO_SOME, "PUBLIC_URL", "PYTHON_CPU_COUNT"}


DATABASE_OF = {service: f"{service.upper()}_DATABASE_URL" for service in ("auth", *PARTICIPANTS, "scim")}
NOWHERE = "postgres://none@none.invalid/none"


def run_time_database(service: str) -> str:
    return f"postgres://{service}:test-{service}_database_password@postgres:5432/{service}"


def owners_database(service: str) -> str:
    return f"postgres://{service}_owner:test-{service}_owner_password@postgres:5432/{service}"


def kafka_user(name: str) -> dict[str, str]:
    return {
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "PLAIN",
        "sasl.username": name,
        "sasl.password": f"test-kafka_{name}_password",
    }


REDIS_OF = {
    "auth": "redis://auth:test-redis_auth_password@redis:6379/0",
    "participant": "redis://participant:test-redis_participant_password@redis:6379/0",
    "none": "redis://none.invalid",
}


@pytest.mark.parametrize(
    ("roles", "databases", "user_of_kafka", "user_of_redis", "signs"),
    [
        (WEB, ("auth", *PARTICIPANTS, "scim"), "auth", "auth", True),
        (AUTH_WORKERS, ("auth",), "auth", "auth", False),
        *(((service,), (service,), service, "participant", False) for service in PARTICIPANTS),
        (("scim",), ("scim",), "scim", "participant", False),
        (("search",), (), "search", "participant", False),
        (("set-up-kafka",), (), "admin", "none", False),
    ],
)
def test_a_role_gets_only_the_secrets_that_it_needs(roles, databases, user_of_kafka, user_of_redis, signs):
    for role in roles:
        environment = environment_of(role)
        expected = dict.fromkeys(DATABASE_OF.values(), NOWHERE)
        expected |= {DATABASE_OF[service]: run_time_database(service) for service in databases}
        assert {name: environment[name] for name in expected} == expected
        assert json.loads(environment["KAFKA_CLIENT_CONFIG"]) == kafka_user(user_of_kafka)
        assert environment["REDIS_URL"] == REDIS_OF[user_of_redis]
        of_web = {"SECRET_KEY", "SECRET_KEY_FALLBACKS", "EMAIL_URL"}
        assert of_web & environment.keys() == (of_web if signs else set())
        told = [
            *expected.values(),
            environment["KAFKA_CLIENT_CONFIG"],
            REDIS_OF[user_of_redis],
            environment.get("SECRET_KEY"),
        ]
        assert_no_other_secret(environment, told)


def test_migrations_alone_get_the_owners_of_the_tables():
    environment = environment_of("migrate")
    expected = {name: owners_database(service) for service, name in DATABASE_OF.items()}
    assert {name: environment[name] for name in expected} == expected
    assert not {"KAFKA_CLIENT_CONFIG", "SECRET_KEY", "EMAIL_URL"} & environment.keys()
    assert_no_other_secret(environment, list(expected.values()))
    for name, service in services().items():
        assert ("_owner" in json.dumps(service.get("environment", {}))) == (name in ("migrate", "databases")), name


def assert_no_other_secret(environment: Mapping[str, str], expected: list[str | None]) -> None:
    secrets = [value for name, value in ENVIRONMENT.items() if name in SECRETS]
    for value in environment.values():
        assert value in expected or not any(secret in value for secret in secrets), value


def test_the_servers_get_no_secret_of_the_roles():
    given = {name: json.dumps(services()[name].get("environment", {})) for name in (*SERVERS, "databases")}
    owners = {name: [secret for secret in SECRETS if ENVIRONMENT[secret] in text] for name, text in given.items()}
    assert owners == {
        "gateway": [],
        "postgres": ["POSTGRES_PASSWORD"],
        "kafka": [name for name in SECRETS if name.startswith("KAFKA_")],
        "redis": [name for name in SECRETS if name.startswith("REDIS_")],
        "databases": [name for name in SECRETS if "DATABASE" in name or "OWNER" in name or "POSTGRES" in name],
    } | {"databases": owners["databases"]}
    given_to_databases = {name for name in SECRETS if name.endswith(("DATABASE_PASSWORD", "OWNER_PASSWORD"))}
    given_to_databases |= {"POSTGRES_PASSWORD"}
    assert set(owners["databases"]) == given_to_databases


@pytest.mark.parametrize("name", EVERYTHING)
def test_every_service_has_limits_and_logs_that_rotate(name):
    service = services()[name]
    assert re.fullmatch(r"\d+[mg]", service["mem_limit"])
    # More than one would be refused on a machine with one core.
    assert 0 < float(service["cpus"]) <= 1
    assert service["logging"] == {"driver": "json-file", "options": {"max-size": "10m", "max-file": "5"}}


def test_prometheus_reaches_every_worker():
    """At the port in deploy/prometheus.yaml (test_metrics)."""
    for role in WORKERS:
        environment = environment_of(role)
        assert (environment["HEALTH_HOST"], environment["HEALTH_PORT"]) == ("0.0.0.0", "8001")
        others = {"scim": ["outside", "inside"], "search": ["inside", "search"]}
        assert services()[role]["networks"] == others.get(role, ["inside"])
    assert "inside" in services()["prometheus"]["networks"]


def test_no_network_has_a_fixed_address():
    """Otherwise a second copy could not run on the same host."""
    assert resolved(ENVIRONMENT)["networks"] == {
        "outside": {},
        "inside": {"internal": True},
        "search": {"internal": True},
        "operators": {},
    }


@pytest.mark.parametrize("name", EVERYTHING)
def test_every_container_has_minimal_privileges(name):
    service = services()[name]

    assert service["user"].split(":")[0] not in ("root", "0")
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert service["restart"] in ("unless-stopped", "on-failure")
    assert service["read_only"] is (name not in ("kafka", "opensearch", "dashboards"))
    assert ("ports" in service) is (name in ("gateway", *PUBLISHED))
    assert ("outside" in service["networks"]) is (name in ("gateway", "web", "auth", "scim"))
    assert service["stop_grace_period"]


def test_roles_that_hold_streams_notice_dead_clients_soon():
    """docs/adr/0015; tests/chaos/test_leaks.py shows what it does."""
    holding = {name: service["sysctls"] for name, service in services().items() if "sysctls" in service}
    assert holding == {name: {"net.ipv4.tcp_retries2": "6"} for name in ("gateway", "web", "auth")}


@pytest.mark.parametrize("name", EVERYTHING)
def test_every_long_running_service_has_a_health_check_of_its_own(name):
    check = services()[name]["healthcheck"]
    if name in ENDING:
        assert check == {"disable": True}
        return
    assert check["test"][0] == "CMD"
    if name in ROLES:
        port = "8000" if name in WEB else environment_of(name)["HEALTH_PORT"]
        assert f"http://127.0.0.1:{port}/health/ready" in check["test"][-1]


def test_mounted_and_copied_files_exist():
    mounted = {volume.split(":")[0] for service in services().values() for volume in service.get("volumes", [])}
    for path in mounted - {"postgres", "kafka", "opensearch", "prometheus", "grafana"}:
        assert (ROOT / path).is_file() or path == "./deploy/dashboards"
    copied = re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["root_packages"]
    assert {*packages, "templates", "static", "locale", "manage.py", "requirements.txt"} <= {*copied}


def test_the_image_is_built_once_and_every_role_runs_it():
    assert [name for name in EVERYTHING if "build" in services()[name]] == ["migrate"]
    assert len({services()[name]["image"] for name in ROLES}) == 1


def test_the_image_runs_without_root_from_hashed_requirements():
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    last_stage = lines[max(number for number, line in enumerate(lines) if line.startswith("FROM ")) :]

    users = [line.split()[1] for line in last_stage if line.startswith("USER ")]
    assert users == [services()["web"]["user"]]
    assert any("--require-hashes" in line for line in lines)
    assert not any(line.startswith("COPY") and "--from=build" not in line for line in last_stage)


# --- The tools for operators ------------------------------------------------------------------------------------

# The ports on the host, all on its loopback.
PUBLISHED = {"dashboards": 5601, "prometheus": 9090, "grafana": 3000, "kafka-ui": 8081}


def test_tools_are_published_on_the_loopback_only_and_reach_no_role_from_there():
    for name, port in PUBLISHED.items():
        [published] = services()[name]["ports"]
        assert re.fullmatch(rf"127\.0\.0\.1:{port}:\d+", published)
        assert "operators" in services()[name]["networks"]
    members = {name for name in EVERYTHING if "operators" in services()[name]["networks"]}
    assert members == {*PUBLISHED}


def test_opensearch_without_passwords_is_reached_by_the_indexer_and_dashboards_only():
    members = {name for name in EVERYTHING if "search" in services()[name]["networks"]}
    assert members == {"opensearch", "search", "dashboards", "dashboards-import"}
    assert services()["opensearch"]["networks"] == ["search"]
    assert environment_of("search")["OPENSEARCH_URL"] == "http://opensearch:9200"


def test_every_tool_has_a_pinned_version_and_only_its_own_secrets():
    for name in TOOLS:
        assert re.search(r":v?\d+\.\d+\.\d+$", services()[name]["image"]), name
    given = {name: json.dumps(services()[name].get("environment", {})) for name in (*TOOLS, "dashboards-import")}
    assert {name: [secret for secret in SECRETS if ENVIRONMENT[secret] in text] for name, text in given.items()} == {
        "opensearch": [],
        "dashboards": [],
        "dashboards-import": [],
        "prometheus": [],
        "grafana": ["GRAFANA_ADMIN_PASSWORD"],
        "kafka-ui": ["KAFKA_VIEWER_PASSWORD", "UI_LOGIN_PASSWORD"],
    }
    assert 'username="viewer"' in given["kafka-ui"].replace("\\", "")


def test_opensearch_has_the_version_that_the_tests_index_into():
    pom = (ROOT / "tests/servers/opensearch/pom.xml").read_text()
    tested = re.search(r"<version>(\d+\.\d+\.\d+)\.\d+</version>", pom)
    assert tested
    for name in ("opensearch", "dashboards"):
        assert services()[name]["image"].endswith(f":{tested[1]}")
