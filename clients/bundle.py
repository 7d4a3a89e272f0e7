"""Write docs/openapi.yaml and its schemas as one JSON file, which every generator of clients can read.

    python clients/bundle.py var/clients/openapi.json

Generators do not reliably follow references to other files, nor know schemas that are `false` or conditional. Those
only restrict what auth sends: a client loses nothing without them. The Python generator writes invalid code for a
constant that is a boolean and for a header that is no string, so these become plain booleans and strings.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

import yaml

DOCS = Path(__file__).resolve().parents[1] / "docs"
CONDITIONS = ("if", "then", "else", "$schema")
# Keywords whose `false` is a value, not a schema.
KEPT = ("additionalProperties", "required", "example", "complete", "default")


def bundle() -> dict[str, Any]:
    """Return the document with every schema among its components: signup-state.json becomes SignupState."""
    document = yaml.safe_load((DOCS / "openapi.yaml").read_text(encoding="utf-8"))
    bundled: dict[str, Any] = _simplified(document)
    schemas = bundled["components"]["schemas"]
    for path in sorted((DOCS / "schemas").glob("*.json")):
        if path.stem in _used(document):
            schemas[_name(path.stem)] = _simplified(_schema(path.name))
            # The title is a sentence for readers; generators would make a class name of it.
            schemas[_name(path.stem)]["title"] = _name(path.stem)
    return bundled


def _used(document: Any) -> set[str]:
    """Return the schemas to which the document refers as a whole."""
    return set(re.findall(r'"\$ref": "schemas/([\w-]+)\.json"', json.dumps(document)))


def _simplified(node: Any) -> Any:
    """Return a part of a document without what generators do not know."""
    if isinstance(node, list):
        return [_simplified(each) for each in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        return _referred(node["$ref"])
    if node.get("in") == "header":
        node = node | {"schema": {"type": "string"}}
    if isinstance(node.get("const"), bool):
        node = {name: value for name, value in node.items() if name != "const"} | {"type": "boolean"}
    return {
        name: _simplified(value)
        for name, value in node.items()
        if name not in CONDITIONS and (value is not False or name in KEPT)
    }


def _referred(ref: str) -> Any:
    """Return a reference within the bundle, or the part of a schema to which a reference with a pointer leads."""
    file, _, pointer = ref.partition("#")
    if not file:
        return {"$ref": ref}
    name = Path(file).name
    if not pointer:
        return {"$ref": f"#/components/schemas/{_name(Path(file).stem)}"}
    node = _schema(name)
    for part in pointer.split("/")[1:]:
        node = node[part]
    return _simplified(node)


def _schema(file: str) -> Any:
    return json.loads((DOCS / "schemas" / file).read_text(encoding="utf-8"))


def _name(stem: str) -> str:
    return "".join(part.capitalize() for part in stem.split("-"))


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(bundle(), indent=1, ensure_ascii=False), encoding="utf-8")
