"""The README leads through the code, and the unit tests mirror the layout of the code."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()


def test_every_link_of_the_readme_has_a_target():
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_a_sign_up_is_followed_through_at_most_twelve_files_each_once():
    rows = re.findall(r"^\| (\d+) \| \[([^]]+)\]\(([^)]+)\)", README, re.MULTILINE)
    assert [int(number) for number, _, _ in rows] == list(range(1, len(rows) + 1))
    assert 1 < len({path for _, _, path in rows}) == len(rows) <= 12
    assert all(name == path for _, name, path in rows)


def test_each_folder_of_unit_tests_has_the_name_of_what_it_tests():
    folders = {path.parent for path in (ROOT / "tests/unit").rglob("test_*.py")} - {ROOT / "tests/unit"}
    assert folders
    assert [folder for folder in folders if not (ROOT / folder.relative_to(ROOT / "tests/unit")).is_dir()] == []


def test_the_files_named_in_the_canvases_exist():
    named = {
        (canvas.name, file)
        for canvas in (ROOT / "docs/services").glob("*.md")
        for file in re.findall(r"`([\w/]+\.py)`", canvas.read_text())
    }
    assert named
    assert [(canvas, file) for canvas, file in sorted(named) if not (ROOT / file).exists()] == []


def test_the_files_of_the_mutation_tests_exist():
    modules = tomllib.loads((ROOT / "tests/mutants/modules.toml").read_text())["modules"].values()
    named = {path.partition("::")[0] for module in modules for path in (*module["files"], *module["tests"])}
    assert named
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []


def test_the_files_that_answer_a_newcomers_questions_exist():
    text = (ROOT / "docs/performance.md").read_text()
    section = text.split("## Finding something in the code\n")[1].split("\n## ")[0]
    answers = re.findall(r"^\| [A-Z][^|]*\? \| ([^|]+) \|$", section, re.MULTILINE)
    files = [re.findall(r"`([^`]+)`", answer) for answer in answers]
    assert len(files) >= 24
    assert max(map(len, files)) <= 2
    assert [path for paths in files for path in paths if not (ROOT / path).is_file()] == []
