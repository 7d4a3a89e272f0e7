"""JSON schemas as lists of fields, for the pages under /docs/."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from signup_sync.front.contracts.contract_files import Place
from signup_sync.front.contracts.markup import blocks


@dataclass(frozen=True)
class Field:
    """A field of a JSON object, with its description as HTML.

    `name` is the path to it: `services.*.status`, or `records[].userId` in an array.
    """

    name: str
    kind: str
    limits: str
    description: SafeString
    is_required: bool


def fields_of(schema: Place, prefix: str = "") -> Iterator[Field]:
    """Yield the fields of an object, each followed by the fields within it."""
    for part in _parts(schema):
        required = part.node.get("required", [])
        for name, node in part.node.get("properties", {}).items():
            if node is False:
                continue
            field = Place(part.file, node).resolved()
            yield _field(f"{prefix}{name}", field, is_required=name in required)
            yield from _inner_fields(f"{prefix}{name}", field)


def _parts(schema: Place) -> Iterator[Place]:
    """Yield the schemas that together describe an object: those that `allOf` includes, and then the schema itself."""
    schema = schema.resolved()
    for included in schema.node.get("allOf", []):
        yield from _parts(Place(schema.file, included))
    yield schema


def _inner_fields(name: str, field: Place) -> Iterator[Field]:
    node = field.node
    yield from fields_of(field, f"{name}.") if "properties" in node else ()
    for suffix, inner in (("[]", node.get("items")), (".*", node.get("additionalProperties"))):
        if isinstance(inner, dict):
            yield from fields_of(Place(field.file, inner), f"{name}{suffix}.")


def _field(name: str, field: Place, *, is_required: bool) -> Field:
    return Field(
        name, kind_of(field.node), limits_of(field.node), blocks(field.node.get("description", "")), is_required
    )


def kind_of(node: dict[str, Any]) -> str:
    """Return the type of a value in JSON Schema's words (`string (uuid)`, `array of string`), or its allowed values."""
    if "enum" in node:
        return " | ".join("null" if value is None else str(value) for value in node["enum"])
    if "const" in node:
        return str(node["const"]).lower() if isinstance(node["const"], bool) else str(node["const"])
    kind = node.get("type", "object" if "properties" in node else "")
    if isinstance(kind, list):
        kind = " | ".join(kind)
    if kind == "array" and isinstance(inner := node.get("items"), dict) and (inner_kind := kind_of(inner)):
        return f"array of {inner_kind}"
    return f"{kind} ({node['format']})" if "format" in node else str(kind)


def limits_of(node: dict[str, Any]) -> str:
    """Return the limits of a value in words, such as `2 to 32 characters`."""
    limits = []
    for least, most, words in (
        ("minLength", "maxLength", _("%s characters")),
        ("minItems", "maxItems", _("%s items")),
        ("minimum", "maximum", "%s"),
    ):
        if least in node and most in node:
            limits.append(words % _("%(least)s to %(most)s") % {"least": node[least], "most": node[most]})
        elif most in node:
            limits.append(words % _("at most %s") % node[most])
        elif node.get(least):
            limits.append(words % _("at least %s") % node[least])
    if "default" in node:
        limits.append(_("default %s") % node["default"])
    return ", ".join(limits)
