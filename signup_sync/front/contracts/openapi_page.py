"""docs/openapi.yaml as the page /docs/api/ shows it."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from django.utils.safestring import SafeString

from signup_sync.front.contracts.contract_files import OPENAPI, Place, document, schema_names
from signup_sync.front.contracts.markup import blocks
from signup_sync.front.contracts.schemas import Field, fields_of, kind_of, limits_of

METHODS: Final = ("get", "post", "put", "patch", "delete")


@dataclass(frozen=True)
class Example:
    """An example as the page shows it; `label` is its name or its summary."""

    label: str
    text: str


@dataclass(frozen=True)
class Parameter:
    place: str
    field: Field


@dataclass(frozen=True)
class Content:
    """A body in one media type. `schema` is the ID of a schema's section on the page, if it has one there."""

    media_type: str
    schema: str
    schema_name: str
    examples: list[Example]


@dataclass(frozen=True)
class Response:
    status: str
    description: SafeString
    headers: list[Field]
    contents: list[Content]


@dataclass(frozen=True)
class Operation:
    id: str
    method: str
    path: str
    summary: str
    description: SafeString
    security: list[str]
    parameters: list[Parameter]
    body_description: SafeString
    bodies: list[Content]
    responses: list[Response]


@dataclass(frozen=True)
class Schema:
    id: str
    name: str
    description: SafeString
    fields: list[Field]


def operations() -> Iterator[Operation]:
    paths = Place(OPENAPI, document(OPENAPI)).child("paths")
    for path, node in paths.node.items():
        for method in METHODS:
            if method in node:
                yield _operation(Place(OPENAPI, node), method, path)


def _operation(place: Place, method: str, path: str) -> Operation:
    operation = place.child(method)
    own, body = operation.node, operation.child("requestBody")
    parameters = [*place.node.get("parameters", []), *own.get("parameters", [])]
    responses = operation.child("responses")
    return Operation(
        id=own["operationId"],
        method=method.upper(),
        path=path,
        summary=own.get("summary", ""),
        description=blocks(own.get("description", "")),
        security=[name for alternative in own.get("security", []) for name in alternative],
        parameters=[_parameter(Place(OPENAPI, each).resolved()) for each in parameters],
        body_description=blocks(body.node.get("description", "")),
        bodies=list(contents_of(body)),
        responses=[_response(status, responses.child(status)) for status in sorted(responses.node)],
    )


def _parameter(place: Place) -> Parameter:
    node = place.node
    return Parameter(node["in"], _described(node["name"], place))


def _described(name: str, place: Place) -> Field:
    schema = place.child("schema").node
    description = blocks(place.node.get("description", ""))
    return Field(name, kind_of(schema), limits_of(schema), description, bool(place.node.get("required")))


def _response(status: str, place: Place) -> Response:
    headers = place.child("headers")
    return Response(
        status=status,
        description=blocks(place.node.get("description", "")),
        headers=[_described(name, headers.child(name)) for name in headers.node],
        contents=list(contents_of(place)),
    )


def contents_of(place: Place) -> Iterator[Content]:
    """Yield the bodies of a request or response."""
    content = place.child("content")
    for media_type, node in content.node.items():
        ref = node.get("schema", {}).get("$ref", "")
        name = ref.rpartition("/")[2].removesuffix(".json")
        yield Content(media_type, f"schema-{name}", name, list(examples_of(content.child(media_type))))


def examples_of(place: Place) -> Iterator[Example]:
    """Yield the examples of a body."""
    if "example" in place.node:
        yield Example("", example_text(place.node["example"]))
    named = place.child("examples")
    for name in named.node:
        example = named.child(name).node
        yield Example(example.get("summary", name), example_text(example["value"]))


def example_text(value: Any) -> str:
    """Return an example's value as text: JSON is indented."""
    return value.strip() if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)


def schemas() -> list[Schema]:
    """Return every schema to which an operation refers, in the order of their names."""
    wanted = {content.schema_name for each in operations() for content in _contents_of(each)}
    components = Place(OPENAPI, document(OPENAPI)).child("components", "schemas")
    places = {name: components.child(name) for name in components.node}
    for file in schema_names():
        places[file.removesuffix(".json")] = Place(f"schemas/{file}", document(f"schemas/{file}"))
    return [_schema(name, places[name]) for name in sorted(wanted)]


def _contents_of(operation: Operation) -> Iterator[Content]:
    yield from operation.bodies
    for response in operation.responses:
        yield from response.contents


def _schema(name: str, place: Place) -> Schema:
    title, description = place.node.get("title", name), blocks(place.node.get("description", ""))
    return Schema(f"schema-{name}", title, description, list(fields_of(place)))
