"""docs/operations.md names only existing commands, options, settings, roles and alerts, and covers every alert."""

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.core.management import get_commands, load_command_class

from signup_sync.participants import PARTICIPANTS
from tests.contract.test_metrics import OURS, alert_rules, declared, family, roles_asked

ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "docs" / "operations.md").read_text()
BLOCKS = re.findall(r"^ *```\w*\n(.*?)^ *```$", GUIDE, re.DOTALL | re.MULTILINE)
LINES = [line.strip() for block in BLOCKS for line in block.splitlines() if line.strip()]
MANAGE = [
    line.split("manage.py ", 1)[1] for line in (*LINES, *re.findall("`([^`\n]+)`", GUIDE)) if "manage.py " in line
]


@cache
def options_of(command: str) -> set[str]:
    """Every option of the command and of its subcommands."""
    parsers = [load_command_class(get_commands()[command], command).create_parser("manage.py", command)]
    found: set[str] = set()
    while parsers:
        for action in parsers.pop()._actions:
            found |= set(action.option_strings)
            if isinstance(action.choices, dict):
                found |= action.choices.keys()
                parsers += action.choices.values()
    return found


@pytest.mark.parametrize("line", sorted(MANAGE))
def test_the_guides_commands_and_options_exist(line: str):
    command, *words = re.sub(r"\s+# .*", "", line).split()
    assert command in get_commands()
    given = {word for word in words if word.startswith("--")}
    if command == "dead_letters":
        given.add(words[0])
    assert given <= options_of(command)


def test_the_guides_containers_are_those_of_compose():
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"].keys()
    options_with_value = r"(?:--(?:since|volume|env|scale|service) \S+ |-T |--[a-z-]+ )*"
    verbs = {"stop", "start", "restart", "exec", "run", "logs", "ps", "up"}
    named: set[str] = set()
    for line in LINES:
        if match := re.match(rf"docker compose (\w+) {options_with_value}([^#|<>]*)", re.sub(r"\s+# .*", " ", line)):
            verb, rest = match.groups()
            assert verb in verbs, line
            words = [word for word in rest.split() if not word.startswith("-")]
            named |= set(words[:1] if verb in ("exec", "run") else words)
            named |= {*re.findall(r"--scale (\w+)=", line)}
    assert named - services == set()
    assert {"web", "auth", "chat", "postgres", "relay"} <= named


def test_the_guides_overrides_are_of_services_of_compose():
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    blocks = re.findall(r"^```yaml\n(.*?)^```$", GUIDE, re.DOTALL | re.MULTILINE)
    overridden = [name for block in blocks for name in yaml.safe_load(block)["services"]]
    assert {"auth", "postgres"} <= {*overridden} <= services.keys()


def test_the_guides_settings_exist():
    example = (ROOT / ".env.example").read_text() + (ROOT / "compose.yaml").read_text()
    settings = set(re.findall(r"`([A-Z][A-Z0-9]*_[A-Z0-9_]+)(?:=[^`]*)?`", GUIDE))
    assert settings
    assert {name for name in settings if name not in example} == set()


def test_the_guides_metrics_exist():
    assert set(OURS.findall(GUIDE)) <= {family(each) for each in declared()} | {"signup_sync"}


# For alerts whose severity depends on the role or group: `ticket` for these, `page` for all others.
TEMPLATE = re.compile(r'{{ if match "\^\((?P<names>.+)\)\$" \$labels\.\w+ }}ticket{{ else }}page{{ end }}')
SECTION = re.compile(
    r"^### (?P<alert>\w+)\n\*(?P<severity>\w+)(?:\.\*|\*, or \*ticket\* for (?P<tickets>[^.]+)\.)", re.MULTILINE
)


def severities_in_the_guide() -> dict[str, tuple[str, frozenset[str]]]:
    """Each alert's severity, and the roles or groups for which it is only a ticket."""
    return {
        each["alert"]: (each["severity"], frozenset(re.findall("`([^`]+)`", each["tickets"] or "")))
        for each in SECTION.finditer(GUIDE)
    }


def severity_of(rule: dict[str, Any]) -> tuple[str, frozenset[str]]:
    severity = rule["labels"]["severity"]
    if template := TEMPLATE.fullmatch(severity):
        return "page", frozenset(template["names"].replace(".+", "…").split("|"))
    return severity, frozenset()


def test_every_alert_links_to_its_section_which_gives_its_severity():
    alerts = {str(rule["alert"]): rule for rule in alert_rules()}
    assert severities_in_the_guide() == {name: severity_of(rule) for name, rule in alerts.items()}
    for name, rule in alerts.items():
        assert rule["annotations"]["runbook"] == f"docs/operations.md#{name.lower()}"


def test_the_guide_describes_the_effect_of_each_missing_role():
    _, _, section = GUIDE.partition("### RoleAway\n")
    rows = re.findall(r"^\| (`.+?) \|", section.partition("\n### ")[0], re.MULTILINE)
    listed = {*re.findall(r"`([\w-]+)`", " ".join(rows))}
    # `startservice` adds services, and their row stands for them.
    added = {*PARTICIPANTS} - {"chat", "customer"}
    assert listed == roles_asked().keys() - added


def test_the_guides_links_lead_to_existing_sections_and_files():
    headings = re.findall(r"^#+ (.+)$", GUIDE, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    for target in re.findall(r"\]\(([^)]+)\)", GUIDE):
        if target.startswith("#"):
            assert target[1:] in anchors
        else:
            assert (ROOT / "docs" / target.partition("#")[0]).exists(), target
