"""The files of docs/ that describe the HTTP API and the events, and the references between them."""

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any, Final, cast

import yaml
from django.conf import settings

DOCS: Final = Path(settings.RESOURCES) / "docs"
OPENAPI: Final = "openapi.yaml"
ASYNCAPI: Final = "asyncapi.yaml"


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
    """Return a file of docs/, parsed. An object that is a reference also has the members of its target. Callers must
    not change it."""
    return cast("dict[str, Any]", _resolved(_parsed(file), file))


@cache
def _parsed(file: str) -> Any:
    return json.loads(file_text(file)) if file.endswith(".json") else yaml.safe_load(file_text(file))


def _resolved(node: Any, file: str) -> Any:
    """Return a part of this file with its references resolved. None leads back to itself."""
    if isinstance(node, list):
        return [_resolved(each, file) for each in node]
    if not isinstance(node, dict):
        return node
    if "$ref" not in node:
        return {name: _resolved(each, file) for name, each in node.items()}
    other, _, pointer = node["$ref"].partition("#")
    file = str(PurePosixPath(file).parent / other) if other else file
    target = _parsed(file)
    for part in pointer.split("/")[1:]:
        target = target[part.replace("~1", "/").replace("~0", "~")]
    return _resolved(target, file) | {"$ref": node["$ref"]}
