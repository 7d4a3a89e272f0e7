"""docs/openapi.yaml as the page /docs/api/ shows it."""

from collections.abc import Iterable, Iterator
from typing import Any, Final

from signup_sync.front.contracts.contract_files import OPENAPI, document

METHODS: Final = ("get", "post", "put", "patch", "delete")

Node = dict[str, Any]


def operations() -> Iterator[Node]:
    """Yield the operations, each with its path, its method and also the parameters of its path."""
    for path, node in document(OPENAPI)["paths"].items():
        for method in METHODS:
            if own := node.get(method):
                parameters = [*node.get("parameters", []), *own.get("parameters", [])]
                yield {**own, "path": path, "method": method.upper(), "parameters": parameters}


def schemas(shown: Iterable[Node]) -> list[tuple[str, Node]]:
    """Return every schema to which these operations refer, in the order of their names."""
    bodies = [body for each in shown for body in (each.get("requestBody", {}), *each["responses"].values())]
    found = [content["schema"] for body in bodies for content in body.get("content", {}).values()]
    return sorted({schema_name(schema): schema for schema in found}.items())


def schema_name(schema: Node) -> str:
    """Return the name of a schema that is a reference."""
    return str(schema["$ref"]).rpartition("/")[2].removesuffix(".json")
