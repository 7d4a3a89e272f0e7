"""The files of docs/ that describe the HTTP API and the events, and the references between them."""

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any, Final, NamedTuple, cast

import yaml
from django.conf import settings

DOCS: Final = Path(settings.RESOURCES) / "docs"
OPENAPI: Final = "openapi.yaml"
ASYNCAPI: Final = "asyncapi.yaml"


class Place(NamedTuple):
    """A part of a document, and the file against which its references are resolved."""

    file: str
    node: Any

    def child(self, *path: str) -> "Place":
        """Return what this path of members leads to, following references on the way; `{}` if a member is missing."""
        place = self.resolved()
        for name in path:
            place = Place(place.file, place.node.get(name, {})).resolved()
        return place

    def resolved(self) -> "Place":
        """Return the target if this is a reference, and the place itself otherwise."""
        if not isinstance(self.node, dict) or "$ref" not in self.node:
            return self
        file, _, pointer = self.node["$ref"].partition("#")
        file = str(PurePosixPath(self.file).parent / file) if file else self.file
        place = Place(file, document(file))
        for part in pointer.split("/")[1:]:
            place = Place(file, place.node[part.replace("~1", "/").replace("~0", "~")])
        return place.resolved()


@cache
def schema_names() -> Sequence[str]:
    """Return the file names of all schemas."""
    return sorted(path.name for path in (DOCS / "schemas").glob("*.json"))


@cache
def file_text(file: str) -> str:
    """Return the text of a file of docs/. Callers pass only names of this module's documents and schemas."""
    return (DOCS / file).read_text(encoding="utf-8")


@cache
def document(file: str) -> dict[str, Any]:
    """Return a file of docs/, parsed. Callers must not change it."""
    text = file_text(file)
    return cast("dict[str, Any]", json.loads(text) if file.endswith(".json") else yaml.safe_load(text))
