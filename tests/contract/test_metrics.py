"""The metrics in the code, the list in docs/, the alerts and the dashboard agree with each other."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.metrics import MetricWrapperBase

import authsvc.metrics
import eventbus.metrics
import runtime.metrics

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
LISTED = re.compile(r"^\| `(?P<name>\w+)` \| (?P<kind>\w+) \|(?P<labels>[^|]*)\|", re.MULTILINE)
OURS = re.compile(r"\b(?:signup|eventbus)_[a-z_]+\b")
# The names that a query may use for each family of a type.
SAMPLES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_count", "_sum")}


def declared() -> list[MetricWrapperBase]:
    modules = (authsvc.metrics, eventbus.metrics, runtime.metrics)
    return [each for module in modules for each in vars(module).values() if isinstance(each, MetricWrapperBase)]


def test_metrics_are_declared_only_in_the_modules_that_are_compared_with_the_list():
    """Metrics that are declared elsewhere are not compared with the list."""
    packages = {path.parent for path in ROOT.glob("*/__init__.py")} - {ROOT / "tests", ROOT / "bench"}
    made = re.compile(r"= (?:Counter|Gauge|Histogram|Summary|Info|Enum)\(\s*\"", re.MULTILINE)
    sources = [path for package in packages for path in package.rglob("*.py")]
    declaring = {str(path.relative_to(ROOT)) for path in sources if made.search(path.read_text())}
    assert declaring == {"authsvc/metrics.py", "eventbus/metrics.py", "runtime/metrics.py"}


def family(metric: MetricWrapperBase) -> str:
    return metric.describe()[0].name


def alert_rules() -> list[dict[str, Any]]:
    [group] = yaml.safe_load((DEPLOY / "prometheus-alerts.yaml").read_text())["groups"]
    return group["rules"]


def scrape_jobs() -> list[dict[str, Any]]:
    return yaml.safe_load((DEPLOY / "prometheus.yaml").read_text())["scrape_configs"]


def roles_asked() -> dict[str, str]:
    """The roles that Prometheus scrapes, each with its job."""
    return {name: job["job_name"] for job in scrape_jobs() for each in job["dns_sd_configs"] for name in each["names"]}


def panel_queries() -> dict[str, str]:
    dashboard = json.loads((DEPLOY / "grafana-dashboard.json").read_text())
    return {
        f"panel {panel['title']} {target['refId']}": target["expr"]
        for panel in dashboard["panels"]
        for target in panel["targets"]
    }


def queries() -> dict[str, str]:
    return panel_queries() | {f"alert {rule['alert']}": rule["expr"] for rule in alert_rules()}


def test_the_list_has_every_metric_with_its_type_and_labels_and_no_other():
    listed = {
        each["name"].removesuffix("_total"): (each["kind"], tuple(re.findall(r"`(\w+)`", each["labels"])))
        for each in LISTED.finditer((ROOT / "docs" / "metrics.md").read_text())
    }
    assert listed == {family(each): (each.describe()[0].type, each._labelnames) for each in declared()}


@pytest.mark.parametrize("where", queries())
def test_alerts_and_dashboard_query_existing_metrics(where):
    there = {family(each) + suffix for each in declared() for suffix in SAMPLES[each.describe()[0].type]}
    asked = OURS.findall(queries()[where])
    assert set(asked) <= there
    assert asked or re.search(r"\b(up|process_\w+)\b", queries()[where])


@pytest.mark.parametrize("where", queries())
def test_alerts_and_dashboard_group_by_existing_labels(where):
    """By labels of the metrics in the query, or by those that Prometheus adds to each target and bucket."""
    query = queries()[where]
    asked = {re.sub(r"_(total|bucket|count|sum)$", "", name) for name in OURS.findall(query)}
    labels = {label for each in declared() if family(each) in asked for label in each._labelnames}
    labels |= {"instance", "job", "role", *(["le"] if "_bucket" in query else [])}
    for listed in re.findall(r"\bby \(([^)]*)\)", query):
        assert {label.strip() for label in listed.split(",")} <= labels
    assert set(re.findall(r"(\w+)=~?\"", query)) <= labels


def test_every_metric_of_ours_is_on_the_dashboard():
    """An alert alone does not show the time before and after it fired."""
    shown = {
        re.sub(r"_(total|bucket|count|sum)$", "", name) for name in OURS.findall(" ".join(panel_queries().values()))
    }
    assert {family(each) for each in declared()} - shown == set()


def test_no_panel_covers_another():
    dashboard = json.loads((DEPLOY / "grafana-dashboard.json").read_text())
    places = [
        (x, y)
        for panel in dashboard["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(places)) == len(places)
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


def test_every_alert_describes_the_fault_and_the_remedy():
    for rule in alert_rules():
        assert rule["annotations"].keys() == {"summary", "action", "runbook"}


def test_prometheus_scrapes_every_role_at_its_address_in_compose():
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    config = yaml.safe_load((DEPLOY / "prometheus.yaml").read_text())
    asked = {name: each["port"] for job in scrape_jobs() for each in job["dns_sd_configs"] for name in each["names"]}
    roles = {name for name, service in compose.items() if "signup-sync" in service["image"]}
    roles -= {"migrate", "set-up-kafka", "dashboards-import"}  # They end before the others start.
    assert asked == {name: 8000 if name in ("web", "auth") else 8001 for name in roles}
    assert [(DEPLOY / name).is_file() for name in config["rule_files"]] == [True]


def test_an_alert_names_each_role_that_prometheus_scrapes():
    """tests/contract/test_observing.py tests the rule with Prometheus's own promtool, where that is installed."""
    for job in scrape_jobs():
        assert {"source_labels": ["__meta_dns_name"], "target_label": "role"} in job["relabel_configs"]
    [rule] = [each for each in alert_rules() if each["alert"] == "RoleAway"]
    assert sorted(re.findall(r'absent\(up\{role="([^"]+)"\}\)', rule["expr"])) == sorted(roles_asked())
