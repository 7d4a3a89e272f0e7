"""The contracts in docs/ (openapi.yaml, asyncapi.yaml and their schemas), and validation of single messages."""

import json
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml
from jsonschema import Draft202012Validator, FormatChecker
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

DOCS = Path(__file__).resolve().parents[2] / "docs"
# The bodies with which uvicorn and Caddy answer malformed HTTP.
MALFORMED = (b"Invalid HTTP request received.", b"400 Bad Request")


@cache
def document(name: str) -> Any:
    """Return a file of docs/, parsed as YaML (which JSON is, too). Callers must not change it."""
    return yaml.load((DOCS / name).read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


@cache
def registry() -> Registry[Any]:
    """Return the files of docs/ by name, crawled: otherwise, each validation would search them for subschemas again."""
    paths = [*DOCS.glob("*.yaml"), *DOCS.glob("schemas/*.json")]
    names = [path.relative_to(DOCS).as_posix() for path in paths]
    resources: list[tuple[str, Resource[Any]]] = [(name, DRAFT202012.create_resource(document(name))) for name in names]
    return Registry().with_resources(resources).crawl()


FORMATS = FormatChecker()


@FORMATS.checks("date-time", raises=ValueError)
def is_date_time(value: object) -> bool:
    """jsonschema checks times only if another library is installed; Python reads them itself."""
    return not isinstance(value, str) or datetime.fromisoformat(value).tzinfo is not None


def look_up(ref: str, *, base: str) -> Any:
    """Return what a `$ref` in the file `base` refers to."""
    return registry().resolver(base).lookup(ref).contents


@cache
def validator(schema: str) -> Draft202012Validator:
    return Draft202012Validator(inlined({"$ref": schema}, registry().resolver()), format_checker=FORMATS)


def inlined(schema: Any, resolver: Any) -> Any:
    """Return the schema with what its references refer to in their place: a validator looks up each one every time."""
    if isinstance(schema, list):
        return [inlined(each, resolver) for each in schema]
    if not isinstance(schema, dict):
        return schema
    rest = {name: inlined(each, resolver) for name, each in schema.items() if name != "$ref"}
    if not isinstance(ref := schema.get("$ref"), str):
        return rest
    found = resolver.lookup(ref)
    target = inlined(found.contents, found.resolver)
    return {**rest, "allOf": [target, *rest.get("allOf", ())]} if rest else target


def validate(value: Any, schema: str) -> None:
    """Raise ValidationError if the value does not fit the schema at this place: a file, perhaps with a pointer."""
    validator(schema).validate(value)


def pointer(file: str, *path: str) -> str:
    """Return the place of something in a file (RFC 6901, as a URI's fragment)."""
    return f"{file}#/" + "/".join(quote(part.replace("~", "~0").replace("/", "~1"), safe="~") for part in path)


def walk(node: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield path, node
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, child in children:
        yield from walk(child, (*path, str(key)))


def events_of(stream: str) -> list[dict[str, str]]:
    """Return the events of a stream by their fields, without comments and `retry`."""
    blocks = [dict(line.split(": ", 1) for line in block.splitlines()) for block in stream.split("\n\n") if block]
    return [block for block in blocks if "event" in block]


def check_event(event: Mapping[str, str]) -> None:
    """Raise ValidationError or AssertionError if a server-sent event does not fit the contract."""
    if event["event"] in ("delayed", "stalled"):
        assert event.keys() == {"event", "data"}
        return
    assert event.keys() == {"event", "id", "data"}
    assert event["event"] == "status"
    data = json.loads(event["data"])
    validate(data, f"schemas/{'change' if 'changeId' in data else 'signup'}-status-event.json")
    assert event["id"] == str(data["version"])
    assert data["complete"] is all(light["status"] != "PENDING" for light in data["services"].values())


def states_of(stream: str) -> list[dict[str, Any]]:
    """Validate every event of a stream, and return the states in order. Raise like `check_event`."""
    events = events_of(stream)
    for event in events:
        check_event(event)
    return [json.loads(event["data"]) for event in events if event["event"] == "status"]


def check_frame(frame: Mapping[str, Any]) -> None:
    """Raise ValidationError if a frame of the page's WebSocket does not fit the contract."""
    kinds = {"delayed": "signUpDelayed", "stalled": "signUpStalled", "expired": "signUpExpired"}
    # A state may also be stalled; then it has all lights.
    kind = next((kind for kind in kinds if frame.get(kind) is True and "services" not in frame), None)
    check_event_message(kinds[kind] if kind else "signUpState", None, frame)


def check_response(method: str, path: str, status: int, content_type: str, body: bytes) -> None:
    """Raise ValidationError or AssertionError if a response of the API does not fit openapi.yaml.

    Paths that it does not have are ignored, apart from problem documents, which always fit their schema. So is the
    server's answer to malformed HTTP, which never reaches the API."""
    if status == HTTPStatus.BAD_REQUEST and body in MALFORMED:
        return
    media_type = content_type.partition(";")[0]
    if media_type == "application/problem+json":
        problem = json.loads(body)
        validate(problem, "schemas/problem.json")
        assert problem["status"] == status
    if (place := _operation(method, path.partition("?")[0])) is None:
        return
    responses = look_up(pointer("openapi.yaml", *place, "responses"), base="openapi.yaml")
    assert str(status) in responses, f"{method} {path} answered {status}, which openapi.yaml does not have"
    documented = responses[str(status)]
    at = (
        documented["$ref"].removeprefix("#/").split("/") if "$ref" in documented else (*place, "responses", str(status))
    )
    documented = look_up(pointer("openapi.yaml", *at), base="openapi.yaml")
    content = documented.get("content", {})
    assert media_type in content or (not body and not content), f"{method} {path} answered {status} as {media_type!r}"
    if media_type == "application/json":
        validate(json.loads(body), pointer("openapi.yaml", *at, "content", media_type, "schema"))


def _operation(method: str, path: str) -> tuple[str, ...] | None:
    for template, operations in document("openapi.yaml")["paths"].items():
        if method.lower() in operations and re.fullmatch(re.sub(r"{\w+}", "[^/]+", template), path):
            return ("paths", template, method.lower())
    return None


def check_event_message(name: str, headers: Any, payload: Any) -> None:
    """Raise ValidationError if a message of asyncapi.yaml, with this name there, does not fit.

    `headers` is None for a frame of the WebSocket, which has none."""
    contract = document("asyncapi.yaml")["components"]["messages"][name]
    place = pointer("asyncapi.yaml", "components", "messages", name)
    assert ("headers" in contract) is (headers is not None)
    if headers is not None:
        validate(headers, f"{place}/headers")
    validate(payload, f"{place}/payload/schema" if "schema" in contract["payload"] else f"{place}/payload")
