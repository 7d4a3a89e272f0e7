"""The files that name every participant. A new one gets a copy of each line about an existing one, so that what all
participants have in common is written only in these files themselves.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import groupby, takewhile
from pathlib import Path
from typing import Final

from signup_sync.participants import package_of

# Each edits a text: (text, new participant, existing participant).
Edit = Callable[[str, str, str], str]


class SharedFileError(Exception):
    """A file lacks the lines that it needs, or the name has another meaning in it; the text says which file."""


def add(root: Path, service: str, *, like: str) -> Mapping[str, str]:
    """Return the new texts of the files, by their paths, with `service` added wherever they name `like`."""
    return dict(_edited(root, _ADD, service, like))


def remove(root: Path, service: str, *, like: str) -> Mapping[str, str]:
    """Return the new texts of the files, by their paths, without the lines about `service` that `like` has too."""
    return dict(_edited(root, _REMOVE, service, like))


def _edited(root: Path, edits: Mapping[str, Edit], service: str, like: str) -> Iterator[tuple[str, str]]:
    for path, edit in edits.items():
        text = (root / path).read_text()
        try:
            edited = edit(text, service, like)
        except SharedFileError as error:
            raise SharedFileError(f"{path} {error}") from None
        if edited == text:
            raise SharedFileError(f"{path} has no line about {service if edits is _REMOVE else like}")
        yield path, edited


def _copy_lines(text: str, service: str, like: str) -> str:
    """Add a copy of each line about `like`, with its block of YAML."""
    there = {lines[0] for lines in _pieces(text, service)}
    copied: list[str] = []
    for lines in _pieces(text, like):
        copied += lines
        if _is_about(lines[0], like):
            copy = [renamed(line, like, service) for line in lines]
            if copy[0] in there:
                raise SharedFileError(f"has “{copy[0].strip()}” already, with another meaning")
            copied += copy
    return "".join(copied)


def _drop_lines(text: str, service: str, like: str) -> str:
    """Remove the lines and blocks that `_copy_lines` adds. A block is removed even if its lines have been changed."""
    heads = {lines[0] for lines in _pieces(text, like)}
    return "".join(
        "".join(lines)
        for lines in _pieces(text, service)
        if not (_is_about(lines[0], service) and renamed(lines[0], service, like) in heads)
    )


def _pieces(text: str, service: str) -> Iterator[list[str]]:
    """Split the text into lines, but keep the indented lines under `service:`, with the empty line that follows them,
    and those under an item of a list that names the service with their first line."""
    lines = text.splitlines(keepends=True)
    while lines:
        size = 1
        if head := re.fullmatch(rf"( *){service}:\n", lines[0]):
            size += len(list(takewhile(re.compile(rf"{head[1]} |\n").match, lines[1:])))
        elif (item := re.match(r"( *)- ", lines[0])) and _is_about(lines[0], service):
            size += len(list(takewhile(re.compile(rf"{item[1]} ").match, lines[1:])))
        yield lines[:size]
        lines = lines[size:]


def _is_about(line: str, service: str) -> bool:
    is_prose = line.lstrip().startswith("# ")
    return not is_prose and re.search(_pattern(service), line) is not None


def _pattern(service: str) -> str:
    """Match the service's name as a word, a part of an identifier or a package, in lower or upper case."""
    upper = service.upper()
    return rf"(?<![a-z0-9]){service}(?=svc\b|(?![a-z0-9]))|(?<![A-Z0-9]){upper}(?![A-Z0-9])"


def renamed(text: str, service: str, other: str) -> str:
    """Return the text about `service` as one about `other`."""
    return re.sub(_pattern(service), lambda found: other.upper() if found[0].isupper() else other, text)


def _copy_items(text: str, service: str, like: str, *, name: Callable[[str], str]) -> str:
    """Add the participant's name to each list in a line that has that of `like` followed by another item."""
    return re.sub(_item(name(like)), rf"\g<0>\g<1>{name(service)}\g<1>\g<2>", text)


def _drop_items(text: str, service: str, like: str, *, name: Callable[[str], str]) -> str:
    return re.sub(_item(name(service)), "", text)


def _item(name: str) -> str:
    return rf'(?<![\w.-])("?){name}\1(, | \| )'


def _in_tables(edit: Edit) -> Edit:
    """Return an edit of the tables of a Markdown file only."""

    def edited(text: str, service: str, like: str) -> str:
        parts = groupby(text.splitlines(keepends=True), key=lambda line: line.startswith("|"))
        return "".join(edit("".join(part), service, like) if is_table else "".join(part) for is_table, part in parts)

    return edited


_LINES: Final = (
    "signup_sync/participants.py",
    ".env.example",
    ".dockerignore",
    "compose.yaml",
    "deploy/prometheus-alerts.yaml",
    "deploy/k8s/base/kustomization.yaml",
    "deploy/k8s/base/shared/fixed.env",
    "deploy/k8s/base/shared/web.yaml",
    "deploy/k8s/setup/migrate.yaml",
)
_LISTS: Final[Mapping[str, Callable[[str], str]]] = {"pyproject.toml": package_of, "deploy/prometheus.yaml": str}
_TABLES: Final = ("deploy/k8s/README.md",)
_ADD: Final[Mapping[str, Edit]] = {
    **dict.fromkeys(_LINES, _copy_lines),
    **{path: partial(_copy_items, name=name) for path, name in _LISTS.items()},
    **dict.fromkeys(_TABLES, _in_tables(_copy_lines)),
}
_REMOVE: Final[Mapping[str, Edit]] = {
    **dict.fromkeys(_LINES, _drop_lines),
    **{path: partial(_drop_items, name=name) for path, name in _LISTS.items()},
    **dict.fromkeys(_TABLES, _in_tables(_drop_lines)),
}
