"""The decisions in docs/adr: their numbers, the code's references to them, and which ones are superseded."""

import re
import subprocess
from pathlib import Path

from django.conf import settings

ROOT: Path = settings.BASE_DIR
ADR = {path.name[:4]: path for path in sorted((ROOT / "docs/adr").glob("*.md"))}
HEAD = {number: path.read_text().split("\n## ")[0] for number, path in ADR.items()}
# Matches docs/adr/0042, ADR 0042, and the further numbers of "(docs/adr/0027), logins (0033)".
CITED = re.compile(r"(?:\badr/|\bADR |\()(0\d{3})\b")


def tracked(*patterns: str) -> list[Path]:
    names = subprocess.run(["git", "ls-files", *patterns], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [path for name in names.splitlines() if (path := ROOT / name).is_file()]


def test_each_decision_has_its_number_in_its_heading() -> None:
    assert len(ADR) == len(list((ROOT / "docs/adr").glob("*.md"))) > 50, "no two decisions have the same number"
    assert [number for number, head in HEAD.items() if not head.startswith(f"# {number} ")] == []


def test_every_decision_that_is_cited_exists() -> None:
    files = tracked(
        "*.py", "*.md", "*.toml", "*.yaml", "*.html", "*.js", "*.go", "*.sh", "Makefile", "deploy/*", ".env.*"
    )
    cited = {(number, path.name) for path in files for number in CITED.findall(path.read_text())}
    assert {("0057", "changes.py"), ("0033", "rate_limits.py")} <= cited
    assert sorted((number, name) for number, name in cited if number not in ADR) == []


def test_a_superseded_decision_and_its_successor_refer_to_each_other() -> None:
    superseded = {(old, new) for old, head in HEAD.items() for new in re.findall(r"uperseded[^.]* by \[(\d+)\]", head)}
    successors = {
        (old, new)
        for new, head in HEAD.items()
        for sentence in re.findall(r"Supersedes (?:[^.]|\.md)*", head)
        for old in re.findall(r"\[(\d+)\]", sentence)
    }
    assert ("0026", "0050") in superseded
    assert superseded == successors


def test_every_link_between_documents_has_a_target() -> None:
    broken = [
        f"{path.relative_to(ROOT)}: {link}"
        for path in tracked("*.md")
        for link in re.findall(r"\]\((?!https?:|mailto:|#)([^)#\s]+)", path.read_text())
        if not (path.parent / link).exists()
    ]
    assert broken == []
