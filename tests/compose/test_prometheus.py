"""Prometheus of the profile `observe`, as Compose starts it: it scrapes every role, evaluates every alert, and answers
every query of Grafana's dashboard."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest

from tests.compose.clients import sign_up_all
from tests.compose.installation import Installation
from tests.conftest import new_person
from tests.contract.test_compose import services
from tests.contract.test_metrics import alert_rules, panel_queries, roles_asked
from tests.servers import free_port
from tests.servers.docker import run_within
from tests.servers.process import LOOPBACK, ROOT
from tests.waiting import eventually

pytestmark = pytest.mark.needs("docker")

# Prometheus scrapes and evaluates every 15 s, and a rate needs two scrapes.
SCRAPED_WITHIN = 90.0
# Series that exist only after the first such event.
MAY_BE_EMPTY = {"panel Problems answered A", "panel Republished, retried, not delivered C"}


class Prometheus:
    """The API of a running Prometheus."""

    def __init__(self, address: str) -> None:
        self._address = address

    def ask(self, path: str, **query: str) -> Any:
        """Return the data of the answer. Raises AssertionError, for which `eventually` waits, while there is none."""
        try:
            with urlopen(f"http://{self._address}/api/v1/{path}?{urlencode(query)}", timeout=30) as answer:
                return json.load(answer)["data"]
        except HTTPError as error:
            raise AssertionError(error.read()) from error
        except OSError as error:
            raise AssertionError(error) from error


@pytest.fixture(scope="module")
def prometheus(installation: Installation, image: None) -> Iterator[Prometheus]:
    """Prometheus runs with all roles, including those of profiles, but without the servers to which these write."""
    address = f"{LOOPBACK}:{free_port()}"
    settings = {
        "SCIM_SERVERS": "crm=https://scim.invalid/v2",
        "SCIM_TOKENS": "crm=token",
        "COMPOSE_PROFILES": "*",
        "PROMETHEUS_PUBLISH": address,
    }
    started = [name for name in roles_asked() if services()[name].get("profiles")] + ["prometheus"]
    installation.compose("run", "--rm", "--no-deps", "set-up-kafka", **settings)
    try:
        installation.compose("up", "--detach", "--no-deps", "--no-build", *started, **settings)
        yield Prometheus(address)
    finally:
        installation.compose("rm", "--stop", "--force", *started, **settings)


# If no registry provides Prometheus's image, one with the program of Debian's package and the image's volume.
STAND_IN = """
FROM {image}
USER root
COPY prometheus /bin/prometheus
RUN install -d -o 65534 -g 65534 /prometheus
ENTRYPOINT ["/bin/prometheus"]
"""


@pytest.fixture(scope="module")
def image(installation: Installation) -> Iterator[None]:
    """The image that compose.yaml names. A stand-in has its name only as long as these tests run."""
    name = services()["prometheus"]["image"]
    if not run_within(["docker", "image", "inspect", name], 30) or not run_within(["docker", "pull", name], 300):
        yield
        return
    build = ("build", "--quiet", "--tag", name, "--file", "-", str(ROOT / ".servers" / "prometheus"))
    installation.docker(*build, input=STAND_IN.format(image=installation.image))
    try:
        yield
    finally:
        installation.docker("image", "rm", name)


def test_every_process_of_every_role_is_scraped(installation: Installation, prometheus: Prometheus) -> None:
    running = {name: ["up"] * len(installation.containers(name)) for name in roles_asked()}
    assert all(running.values())

    def scraped() -> dict[str, list[str]]:
        health: dict[str, list[str]] = {name: [] for name in running}
        for target in prometheus.ask("targets")["activeTargets"]:
            health[target["labels"]["role"]].append(target["health"])
        assert health == running
        return health

    eventually(scraped, SCRAPED_WITHIN, what=f"{running} are scraped", pause=0.5)


def test_every_alert_is_evaluated_without_an_error(prometheus: Prometheus) -> None:
    def evaluated() -> bool:
        [group] = prometheus.ask("rules")["groups"]
        states = {rule["name"]: (rule["health"], rule.get("lastError")) for rule in group["rules"]}
        assert states == {rule["alert"]: ("ok", None) for rule in alert_rules()}
        return True

    eventually(evaluated, SCRAPED_WITHIN, what="every alert is evaluated", pause=0.5)


def test_every_panel_of_the_dashboard_shows_something_after_some_sign_ups(
    installation: Installation, prometheus: Prometheus
) -> None:
    asyncio.run(sign_up_all(installation.address, [new_person() for _ in range(5)], at_once=5))

    def answered() -> bool:
        # Grafana's value: four scrape intervals.
        queries = {name: query.replace("$__rate_interval", "1m") for name, query in panel_queries().items()}
        answers = {name: prometheus.ask("query", query=query)["result"] for name, query in queries.items()}
        assert {name for name, series in answers.items() if not series} <= MAY_BE_EMPTY
        assert any(float(each["value"][1]) > 0 for each in answers["panel Sign-ups A"]), answers["panel Sign-ups A"]
        return True

    eventually(answered, SCRAPED_WITHIN, what="every query is answered, and the sign-ups are shown", pause=1)
