"""The commands of docs/operations.md and docs/upgrading.md, for tests that type them as an operator does."""

import re
from textwrap import dedent
from typing import Any

import yaml

from tests.servers.process import ROOT

GUIDE = (ROOT / "docs" / "operations.md").read_text()
UPGRADE_GUIDE = (ROOT / "docs" / "upgrading.md").read_text()
_YAML = re.compile(r"^ *```yaml\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
_BLOCK = re.compile(r"^ *```\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)


def override_of(service: str) -> dict[str, Any]:
    """Return what the guide writes into compose.override.yaml for a service, in the last of these files that has it."""
    files = [yaml.safe_load(block)["services"] for block in _YAML.findall(GUIDE)]
    return next(file[service] for file in reversed(files) if service in file)


def commands_after(words: str, guide: str = GUIDE) -> list[str]:
    """Return the commands of the first block after these words of the guide, without their remarks: one for each line,
    and one for a line with its here-document."""
    _, found, rest = guide.partition(words)
    block = _BLOCK.search(rest)
    assert found
    assert block, f"the guide has no commands after “{words}”"
    lines = re.sub(r" +# .*", "", dedent(block[1]))
    return re.findall(r"^.+<<'END'\n(?:.*\n)*?END$|^.+", lines, re.MULTILINE)
