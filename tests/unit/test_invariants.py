"""docs/invariants.md names files that exist, and the code cites invariants that it lists."""

import re
from pathlib import Path

from django.conf import settings

ROOT: Path = settings.BASE_DIR
TEXT = (ROOT / "docs/invariants.md").read_text()


def test_every_file_that_is_named_exists():
    named = re.findall(r"`([\w./]+\.(?:py|toml))`", TEXT)
    assert len(named) > 14
    assert [path for path in named if not (ROOT / path).is_file()] == []


def test_every_invariant_that_is_cited_is_listed():
    listed = re.findall(r"^(\d+)\. ", TEXT, re.MULTILINE)
    assert listed == [str(number) for number in range(1, len(listed) + 1)]
    folders = ("authsvc", "eventbus", "participant", "runtime", "signup_sync", "tests")
    cited = {
        number
        for folder in folders
        for path in (ROOT / folder).rglob("*.py")
        for number in re.findall(r"docs/invariants\.md,\s+(\d+)", path.read_text())
    }
    assert {"1", "11"} <= cited <= set(listed)
