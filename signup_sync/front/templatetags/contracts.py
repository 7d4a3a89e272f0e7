"""Filters for the pages under /docs/, which show parts of the documents."""

import json
from typing import Any

from django import template

from signup_sync.front.contracts.markup import blocks
from signup_sync.front.contracts.openapi_page import schema_name
from signup_sync.front.contracts.schemas import Field, described, fields_of

register = template.Library()
register.filter(blocks)
register.filter(schema_name)


@register.filter
def fields(schema: dict[str, Any]) -> list[Field]:
    """Return the fields of an object."""
    return list(fields_of(schema))


@register.filter
def headers(nodes: dict[str, Any]) -> list[Field]:
    """Return the headers of a response."""
    return [header_field(node, name) for name, node in nodes.items()]


@register.filter
def header_field(node: dict[str, Any], name: str) -> Field:
    """Return a header or parameter."""
    return described(name, node, node["schema"], is_required=bool(node.get("required")))


@register.filter
def examples(node: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the label and the text of each example of a body or a message."""
    named = node.get("examples", {})
    if isinstance(named, list):
        return [(each.get("summary", each["name"]), example_text(each["payload"])) for each in named]
    alone = [("", example_text(node["example"]))] if "example" in node else []
    return [*alone, *((each.get("summary", name), example_text(each["value"])) for name, each in named.items())]


def example_text(value: Any) -> str:
    """Return an example's value as text: JSON is indented."""
    return value.strip() if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)
