"""The files that Prometheus, Grafana and OpenSearch Dashboards read at start-up, judged without these servers: by
Prometheus's own promtool where it is installed, and against the documented forms.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes
from fnmatch import fnmatchcase
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from eventsearch.documents import MAPPING, UNDATED
from tests.contract.test_compose import ROOT, services
from tests.contract.test_metrics import OURS, alert_rules, declared, family, roles_asked
from tests.contract.test_operations_guide import severities_in_the_guide

DEPLOY = ROOT / "deploy"


# --- Prometheus --------------------------------------------------------------------------------------------------


# Debian's, which `tests/setup.sh` unpacks.
PROMTOOL = shutil.which("promtool", path=f"{ROOT / '.servers/prometheus'}:{os.environ['PATH']}")


needs_promtool = pytest.mark.skipif(
    PROMTOOL is None, reason="promtool is not in .servers/prometheus (`bash tests/setup.sh` brings it)"
)


@needs_promtool
def test_prometheus_accepts_its_configuration_and_the_alerts():
    done = subprocess.run(
        [PROMTOOL, "check", "config", DEPLOY / "prometheus.yaml"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "rules found" in done.stdout


# Values of `up`, one every 15 seconds. At the tenth minute the last two have ended five minutes ago.
ANSWERS, NEVER_STARTED, STOPPED, HANGS = "1+0x40", "_x40", "1+0x20 stale", "1+0x20 0+0x20"
# Docker restarts the container again and again, and Prometheus sometimes finds its address.
CRASHES = "1+0x20 stale stale 0 stale stale stale 0 0 stale stale stale stale stale 0 stale stale stale 0 stale stale"


# Seconds since a heartbeat, and messages behind, that fire an alert.
OLD, BEHIND = 40, 20_000


def alert_test(series: dict[str, str], **fired: list[dict[str, str]]) -> dict[str, Any]:
    """A test for promtool: with these values of each series, each alert of `fired` fires at the tenth minute with these
    labels, and with the severity that the guide promises for the label `role` or `group`."""
    rules = {rule["alert"]: rule for rule in alert_rules()}
    expected = [
        {
            "alertname": alert,
            "eval_time": "10m",
            "exp_alerts": [
                {
                    "exp_labels": {**labels, "severity": promised(alert, labels)},
                    "exp_annotations": texts(rules[alert], labels),
                }
                for labels in each
            ],
        }
        for alert, each in fired.items()
    ]
    return {
        "name": f"{fired}: {series}",
        "interval": "15s",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "alert_rule_test": expected,
    }


def promised(alert: str, labels: dict[str, str]) -> str:
    severity, tickets = severities_in_the_guide()[alert]
    name = labels.get("role", labels.get("group", ""))
    return "ticket" if any(fnmatchcase(name, each.replace("…", "?*")) for each in tickets) else severity


def texts(rule: dict[str, Any], labels: dict[str, str]) -> dict[str, str]:
    """The annotations of an alert with these labels."""
    values = {f"$labels.{name}": value for name, value in labels.items()}
    values |= {"$value": str(BEHIND), "$value | humanizeDuration": f"{OLD}s"}
    fill = re.compile("{{ (.+?) }}")
    return {name: fill.sub(lambda found: values[found[1]], text) for name, text in rule["annotations"].items()}


def up(**values: str) -> dict[str, str]:
    """The series of `up` of each process. `values` are those of a role's processes, by the role; every other role has
    one process that answers, but profiles have never been used."""
    others = {role: NEVER_STARTED if services()[role].get("profiles") else ANSWERS for role in roles_asked()}
    return {
        f'up{{job="{job}", role="{role}", instance="{role}:{number}"}}': process
        for role, job in roles_asked().items()
        for number, process in enumerate(values.get(role, others[role]).split(","))
    }


def run_promtool(tests: list[dict[str, Any]], folder: Path) -> None:
    rules = str(DEPLOY / "prometheus-alerts.yaml")
    file = folder / "tests.yaml"
    interval = yaml.safe_load((DEPLOY / "prometheus.yaml").read_text())["global"]["evaluation_interval"]
    file.write_text(yaml.safe_dump({"rule_files": [rules], "evaluation_interval": interval, "tests": tests}))
    done = subprocess.run([PROMTOOL, "test", "rules", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def away(*roles: str, **values: str) -> dict[str, Any]:
    """Return a test in which only RoleAway fires, once for each of these roles."""
    return alert_test(up(**values), RoleAway=[{"role": role} for role in roles], RoleDown=[])


@needs_promtool
def test_one_alert_fires_for_each_role_without_a_responding_process(tmp_path: Path):
    roles = roles_asked()
    tests = [
        away(),
        *(away(role, **{role: values}) for role in roles for values in (STOPPED, HANGS, CRASHES, f"{HANGS},{HANGS}")),
        *(away(role, **{role: NEVER_STARTED}) for role in roles if not services()[role].get("profiles")),
        # Another instance still answers.
        away(auth=f"{ANSWERS},{STOPPED}"),
        away("auth", auth=f"{STOPPED},{HANGS}"),
    ]
    run_promtool(tests, tmp_path)


@needs_promtool
def test_a_process_that_hangs_beside_one_that_answers_is_a_ticket(tmp_path: Path):
    down = {"job": "web", "role": "auth", "instance": "auth:1"}
    assert promised("RoleDown", down) == "ticket"
    run_promtool([alert_test(up(auth=f"{ANSWERS},{HANGS}"), RoleAway=[], RoleDown=[down])], tmp_path)


@needs_promtool
def test_only_roles_that_users_depend_on_page_the_person_on_call(tmp_path: Path):
    stuck = [{"role": role, "instance": f"{role}:8001"} for role in ("chat", "relay", "dead-letters", "search")]
    ages = {
        f'eventbus_heartbeat_age_seconds{{role="{each["role"]}", instance="{each["instance"]}"}}': f"{OLD}x40"
        for each in stuck
    }
    behind = [{"topic": "t", "group": group} for group in ("auth", "chat", "search")]
    lags = {
        f'eventbus_lag_messages{{topic="t", group="{each["group"]}", instance="relay:8001"}}': f"{BEHIND}x40"
        for each in behind
    }
    run_promtool([alert_test(ages, RoleStuck=stuck), alert_test(lags, ConsumerBehind=behind)], tmp_path)
    severities = [
        [promised(alert, each) for each in fired] for alert, fired in (("RoleStuck", stuck), ("ConsumerBehind", behind))
    ]
    assert severities == [["page", "page", "ticket", "ticket"], ["page", "page", "ticket"]]


@needs_promtool
@pytest.mark.parametrize("has_begun", [False, True])
def test_a_relay_that_has_not_begun_to_work_pages_the_person_on_call(tmp_path: Path, has_begun: bool):
    """While no process of the relay answers, RoleAway is enough."""
    counts = {'signup_incomplete{state="due", instance="relay:8001"}': ANSWERS} if has_begun else {}
    tests = [
        alert_test(up() | counts, RelayWaiting=[] if has_begun else [{}]),
        alert_test(up(relay=STOPPED) | counts, RelayWaiting=[]),
    ]
    run_promtool(tests, tmp_path)


@pytest.mark.parametrize("section", ["global", "rule_files"])
def test_prometheus_scrapes_and_alerts_on_kubernetes_as_in_compose(section: str):
    """The tests above evaluate the alerts at the interval of compose."""
    files = (DEPLOY / "prometheus.yaml", DEPLOY / "k8s" / "monitoring" / "prometheus.yaml")
    compose, kubernetes = (yaml.safe_load(file.read_text())[section] for file in files)
    assert kubernetes == compose


def test_prometheus_finds_its_files_where_they_are_mounted():
    service = services()["prometheus"]
    mounted = dict(volume.split(":")[:2] for volume in service["volumes"])
    config = yaml.safe_load((DEPLOY / "prometheus.yaml").read_text())
    assert f"--config.file={mounted['./deploy/prometheus.yaml']}" in service["command"]
    folder = mounted["./deploy/prometheus.yaml"].rpartition("/")[0]
    assert [f"{folder}/{name}" for name in config["rule_files"]] == [mounted["./deploy/prometheus-alerts.yaml"]]
    assert f"--storage.tsdb.path={mounted['prometheus']}" in service["command"]


# --- Grafana -----------------------------------------------------------------------------------------------------


def grafana_file(mount: str) -> Any:
    """The file that is mounted there in Grafana's container."""
    mounted = {volume.split(":")[1]: volume.split(":")[0] for volume in services()["grafana"]["volumes"]}
    return yaml.safe_load((ROOT / mounted[mount]).read_text())


def test_grafana_has_prometheus_as_its_only_data_source():
    config = grafana_file("/etc/grafana/provisioning/datasources/signup-sync.yaml")
    assert config["apiVersion"] == 1
    [source] = config["datasources"]
    assert (source["type"], source["access"], source["isDefault"]) == ("prometheus", "proxy", True)
    assert source["url"] == "http://prometheus:9090"


def test_grafana_loads_the_dashboard_at_start_and_opens_with_it():
    config = grafana_file("/etc/grafana/provisioning/dashboards/signup-sync.yaml")
    assert config["apiVersion"] == 1
    [provider] = config["providers"]
    assert provider["type"] == "file"
    dashboard = grafana_file(f"{provider['options']['path']}/signup-sync.json")
    [variable] = dashboard["templating"]["list"]
    assert (variable["type"], variable["query"]) == ("datasource", "prometheus")
    for panel in dashboard["panels"]:
        assert panel["datasource"] == {"type": "prometheus", "uid": "${" + variable["name"] + "}"}
    home = services()["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == f"{provider['options']['path']}/signup-sync.json"


def test_the_dashboard_queries_existing_metrics():
    names = {family(each) for each in declared()}
    asked = OURS.findall((DEPLOY / "grafana-dashboard.json").read_text())
    assert asked
    assert {re.sub(r"_(total|bucket|count|sum)$", "", name) for name in asked} <= names


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not in .servers/prometheus (`bash tests/setup.sh` brings it)")
def test_prometheus_can_read_the_queries_of_the_dashboard(tmp_path: Path):
    """Grafana only inserts its variables and sends them."""
    dashboard = json.loads((DEPLOY / "grafana-dashboard.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    filled_in = [query.replace("$__rate_interval", "1m") for query in queries]
    assert not [query for query in filled_in if "$" in query]
    rules = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(filled_in)]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    done = subprocess.run(
        [PROMTOOL, "check", "rules", tmp_path / "rules.yaml"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(queries)} rules found" in done.stdout


# --- OpenSearch Dashboards ----------------------------------------------------------------------------------------


def saved_objects() -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DEPLOY / "dashboards" / "events.ndjson").read_text().splitlines()]


def test_saved_objects_refer_to_each_other():
    there = {(each["type"], each["id"]) for each in saved_objects()}
    assert len(there) == len(saved_objects())
    assert {(each["type"], each["id"]) for line in saved_objects() for each in line["references"]} <= there
    for each in saved_objects():
        for name in re.findall(r"\w*RefName\W+([\w.]+)", json.dumps(each["attributes"])):
            assert name in {reference["name"] for reference in each["references"]}


def test_saved_objects_ask_for_fields_that_the_documents_have():
    properties = {**MAPPING["properties"]}
    fields = {*properties, *(f"letter.{name}" for name in properties["letter"]["properties"])}
    [pattern] = [each["attributes"] for each in saved_objects() if each["type"] == "index-pattern"]
    asked = {pattern["timeFieldName"]}
    for each in saved_objects():
        asked |= {*each["attributes"].get("columns", [])}
        source = json.loads(each["attributes"].get("kibanaSavedObjectMeta", {}).get("searchSourceJSON", "{}"))
        asked |= {*re.findall(r"([\w.]+):", source.get("query", {}).get("query", ""))}
        aggregations = json.loads(each["attributes"].get("visState", "{}")).get("aggs", [])
        asked |= {each["params"]["field"] for each in aggregations if each["params"]}
    assert asked >= {"@timestamp", "signupId", "letter.group", "status", "kind"}
    assert asked <= fields


def test_saved_objects_group_by_fields_that_can_be_grouped():
    """Fields of type `text` can't be grouped by, and a histogram needs times."""
    types = {name: field.get("type") for name, field in MAPPING["properties"].items()}
    types |= {f"letter.{name}": field["type"] for name, field in MAPPING["properties"]["letter"]["properties"].items()}
    [pattern] = [each["attributes"] for each in saved_objects() if each["type"] == "index-pattern"]
    assert types[pattern["timeFieldName"]] == "date"
    grouped = [
        (aggregation["type"], types[aggregation["params"]["field"]])
        for each in saved_objects()
        for aggregation in json.loads(each["attributes"].get("visState", "{}")).get("aggs", [])
        if aggregation["params"]
    ]
    assert {*grouped} == {("date_histogram", "date"), ("terms", "keyword")}


@pytest.mark.parametrize("day", ["2026.11.27", UNDATED])
def test_the_index_pattern_finds_every_index(day: str, settings):
    [pattern] = [each["attributes"]["title"] for each in saved_objects() if each["type"] == "index-pattern"]
    assert fnmatchcase(f"{settings.OPENSEARCH_INDEX}-{day}", pattern)


@contextmanager
def dashboards(answer: dict[str, Any], status: int = 200) -> Iterator[tuple[str, list[Any]]]:
    """A server that answers like OpenSearch Dashboards: its address, and the requests that it received."""
    requests: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            requests.append((self.path, self.headers, body))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", requests
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def import_objects(url: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command of the container `dashboards-import`."""
    command = services()["dashboards-import"]["command"]
    script, _, file = command[1:]
    [(folder, mounted)] = [volume.split(":")[:2] for volume in services()["dashboards-import"]["volumes"]]
    words = [sys.executable, script.replace(mounted, folder), url, file.replace(mounted, folder)]
    return subprocess.run(words, env=environment, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize(("index", "pattern"), [("", "signup-events-*"), ("staging-events", "staging-events-*")])
def test_the_objects_are_imported_as_the_api_wants_it(index: str, pattern: str):
    with dashboards({"success": True, "successCount": 7}) as (url, requests):
        done = import_objects(url, OPENSEARCH_INDEX=index)
    assert (done.returncode, done.stdout) == (0, "7 saved objects imported\n"), done.stderr
    [(path, headers, body)] = requests
    assert path == "/api/saved_objects/_import?overwrite=true"
    assert headers["osd-xsrf"] == "true"
    head = f"Content-Type: {headers['Content-Type']}\r\n\r\n".encode()
    [part] = message_from_bytes(head + body).get_payload()
    assert part.get_filename().endswith(".ndjson")
    sent = [json.loads(line) for line in part.get_payload(decode=True).decode().splitlines() if line]
    assert [each["id"] for each in sent] == [each["id"] for each in saved_objects()]
    assert [each["attributes"]["title"] for each in sent if each["type"] == "index-pattern"] == [pattern]


@pytest.mark.parametrize(
    ("answer", "status", "said"),
    [
        ({"success": False, "errors": [{"id": "signup-events"}]}, 200, "refused saved objects"),
        ({"message": "Request must contain a osd-xsrf header."}, 400, "did not import the saved objects"),
    ],
)
def test_a_failed_import_fails_the_container(answer: dict[str, Any], status: int, said: str):
    with dashboards(answer, status) as (url, _):
        done = import_objects(url)
    assert done.returncode == 1
    assert said in done.stderr


def test_dashboards_that_is_down_fails_the_container():
    done = import_objects("http://127.0.0.1:1")
    assert done.returncode == 1
    assert "did not import the saved objects" in done.stderr
