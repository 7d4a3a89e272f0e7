"""The whole of compose.yaml, started as the README says."""

import asyncio
import json
import os
from pathlib import Path

import pytest
import yaml

from tests.client import SERVICES
from tests.compose.clients import sign_up_all
from tests.compose.installation import Installation
from tests.conftest import new_person
from tests.contract.test_compose import ENVIRONMENT, OF_PROFILES, ROLES, services
from tests.e2e.test_compose_commands import REFUSALS

pytestmark = pytest.mark.needs("docker")


def test_every_container_is_healthy_and_new_users_get_green_lights(installation: Installation) -> None:
    services_started = {each["Service"] for each in installation.containers()}
    assert services_started == {*installation.compose("config", "--services").split()}
    assert installation.unhealthy() == {}
    people = [new_person() for _ in range(10)]

    done = asyncio.run(sign_up_all(installation.address, people, at_once=5))

    assert [each.lights for each in done] == [dict.fromkeys(SERVICES, "SUCCESS")] * 10
    assert installation.stored([each.user_id for each in people]) == dict.fromkeys(SERVICES, 10)


@pytest.mark.parametrize("role", sorted({*ROLES} - set().union(*OF_PROFILES.values())))
def test_no_role_is_denied_access(installation: Installation, role: str) -> None:
    """Neither PostgreSQL, Kafka, Redis nor the read-only file system has denied the role an operation."""
    log = installation.compose("logs", role).lower()
    assert log
    assert not [line for line in log.splitlines() if any(word in line for word in (*REFUSALS, "read-only file system"))]


def test_the_operators_tools_have_their_files_volumes_and_networks(installation: Installation) -> None:
    """Nothing of the profiles `observe` and `tools` but their own images is missing here (ADR 0072)."""
    profiles = ("--profile", "observe", "--profile", "tools")
    config = json.loads(installation.compose(*profiles, "config", "--format", "json"))
    tools = {name: config["services"][name] for name in OF_PROFILES["observe"] | OF_PROFILES["tools"]}

    mounts = [(name, mount) for name, service in tools.items() for mount in service.get("volumes", ())]
    assert {mount["source"] for _, mount in mounts if mount["type"] == "volume"} <= config["volumes"].keys()
    files = [Path(mount["source"]) for _, mount in mounts if mount["type"] == "bind"]
    files = [file for path in files for file in (path.iterdir() if path.is_dir() else [path])]
    assert {file.relative_to(installation.directory / "deploy").as_posix() for file in files} == {
        "prometheus.yaml", "prometheus-alerts.yaml", "grafana-dashboard.json", "grafana/datasources.yaml",
        "grafana/dashboards.yaml", "dashboards/events.ndjson", "dashboards/import_objects.py",
    }  # fmt: skip
    for file in files:
        assert parsed(file), file
    for name, service in tools.items():
        assert service["networks"].keys() <= config["networks"].keys()
        assert {port["host_ip"] for port in service.get("ports", ())} <= {"127.0.0.1"}, name


def parsed(file: Path) -> object:
    text = file.read_text()
    match file.suffix:
        case ".ndjson":
            return [json.loads(line) for line in text.splitlines()]
        case ".py":
            return compile(text, file, "exec")
        case _:
            return yaml.safe_load(text)


def test_the_import_of_the_dashboards_runs_in_its_container_and_fails_without_them(installation: Installation) -> None:
    """Its script, its file and its dependencies are there; only OpenSearch Dashboards is not."""
    run = ("--profile", "observe", "run", "--rm", "--no-deps", "--no-TTY", "dashboards-import")
    with pytest.raises(AssertionError, match="did not import the saved objects"):
        installation.compose(*run)


# What both readers give in the same form.
PARTS = ("command", "entrypoint", "environment", "user", "read_only", "cap_drop", "security_opt", "restart")


def test_the_contract_tests_read_the_file_as_docker_does(installation: Installation) -> None:
    config = installation.compose("--env-file", os.devnull, "config", "--format", "json", **ENVIRONMENT)
    read = json.loads(config)["services"]
    assert read.keys() == services().keys()
    for name, service in services().items():
        for part in PARTS:
            assert (read[name].get(part) or None) == (service.get(part) or None), (name, part)
