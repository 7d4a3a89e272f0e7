"""JSON schemas as lists of fields, for the pages under /docs/."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

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


def fields_of(schema: dict[str, Any], prefix: str = "") -> Iterator[Field]:
    """Yield the fields of an object, each followed by the fields within it."""
    for included in schema.get("allOf", []):
        yield from fields_of(included, prefix)
    required = schema.get("required", [])
    for name, field in schema.get("properties", {}).items():
        if field is not False:
            yield described(f"{prefix}{name}", field, field, is_required=name in required)
            yield from _inner_fields(f"{prefix}{name}", field)


def _inner_fields(name: str, field: dict[str, Any]) -> Iterator[Field]:
    yield from fields_of(field, f"{name}.") if "properties" in field else ()
    for suffix, inner in (("[]", field.get("items")), (".*", field.get("additionalProperties"))):
        if isinstance(inner, dict):
            yield from fields_of(inner, f"{name}{suffix}.")


def described(name: str, node: dict[str, Any], schema: dict[str, Any], *, is_required: bool) -> Field:
    """Return the field that `node` describes; its value has this schema."""
    return Field(name, kind_of(schema), limits_of(schema), blocks(node.get("description", "")), is_required)


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
