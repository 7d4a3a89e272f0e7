"""docs/security.md lists every requirement of OWASP ASVS 5.0.0 at levels 1 and 2 once, each with evidence."""

import ast
import re
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs" / "security.md"
REQUIREMENTS = ROOT / "tests" / "security" / "asvs-5.0.0.txt"
TEST = re.compile(r"(tests/[\w/]+\.py)::(test_\w+)")
LINK = re.compile(r"\]\(([^)#]+)\)")


def rows() -> list[tuple[str, str, str, str]]:
    """Yield id, level, text and evidence of each row."""
    cells = [line.strip("| ").split(" | ") for line in DOCUMENT.read_text().splitlines() if re.match(r"\| \d+\.", line)]
    return [(each[0], each[1], each[2], " | ".join(each[3:])) for each in cells]


@cache
def functions_in(file: str) -> frozenset[str]:
    path = ROOT / file
    if not path.is_file():
        return frozenset()
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, functions))


def test_every_requirement_of_both_levels_is_there_once_and_no_other() -> None:
    wanted = [tuple(line.split()) for line in REQUIREMENTS.read_text().splitlines() if not line.startswith("#")]
    assert Counter(level for _, level in wanted) == {"1": 70, "2": 183}
    assert Counter((number, level) for number, level, _, _ in rows()) == Counter(wanted)


@pytest.mark.parametrize(("number", "level", "words", "evidence"), rows(), ids=lambda value: str(value)[:8])
def test_each_requirement_has_an_existing_test_or_a_reason(number: str, level: str, words: str, evidence: str) -> None:
    assert words
    tests = TEST.findall(evidence)
    for file, name in tests:
        assert name in functions_in(file), f"{number}: there is no {file}::{name}"
    kind, _, reason = evidence.partition(": ")
    if kind in ("Does not apply", "Not met", "Not met in part"):
        assert len(reason) > 10
    elif kind == "Documented":
        for link in LINK.findall(reason):
            assert (DOCUMENT.parent / link).is_file(), f"{number}: there is no {link}"
    else:
        assert tests, f"{number}: neither a test nor a reason"


def test_links_of_the_documents_have_targets() -> None:
    for document in (DOCUMENT, ROOT / "SECURITY.md"):
        for link in LINK.findall(document.read_text()):
            assert "://" in link or (document.parent / link).exists(), f"{document.name}: {link}"
