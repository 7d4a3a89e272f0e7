"""Parse header values by their RFCs: case-insensitive names, parameters, quoted strings, lists, weights."""

import re
from collections.abc import Mapping
from typing import Final

from django.utils.http import parse_header_parameters

STREAM: Final = "text/event-stream"
JSON: Final = "application/json"

# One member of a list; it may contain commas inside quoted strings (RFC 9110, 5.6.1 and 5.6.4).
_MEMBER: Final = re.compile(r'(?:[^",]|"(?:[^"\\]|\\.)*"?)+')
_WEIGHT: Final = re.compile(r"0(\.\d{0,3})?|1(\.0{0,3})?")

ListItem = tuple[str, Mapping[str, str]]


def list_items(value: str) -> list[ListItem]:
    """Return the members of a list, each in lower case with its parameters. Malformed members are skipped."""
    return [member for text in _MEMBER.findall(value) if (member := _list_item(text))[0]]


def media_type(value: str) -> ListItem:
    """Return the media type in lower case and its parameters; ("", {}) unless the value has exactly one."""
    found = list_items(value)
    return found[0] if len(found) == 1 else ("", {})


def asks_for_stream(accept: str) -> bool:
    """Whether this Accept header names the stream explicitly (not by a range like */*) and ranks JSON no higher."""
    weights = {kind: _weight(parameters) for kind, parameters in list_items(accept)}
    stream = weights.get(STREAM, 0.0)
    json = next((weights[kind] for kind in (JSON, "application/*", "*/*") if kind in weights), 0.0)
    return stream > 0 and stream >= json


def preferences(value: str) -> set[str]:
    """Return the names in a Prefer header (RFC 7240)."""
    return {name.partition("=")[0].strip() for name, _parameters in list_items(value)}


def _list_item(text: str) -> ListItem:
    try:
        return parse_header_parameters(text)
    except ValueError:  # longer than Django's limit
        return "", {}


def _weight(parameters: Mapping[str, str]) -> float:
    """Return the parameter q: 1 if it is missing, 0 if it isn't a valid weight."""
    text = parameters.get("q", "1")
    return float(text) if _WEIGHT.fullmatch(text) else 0.0
