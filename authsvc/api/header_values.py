"""Values of headers, read as their RFCs say: names without case, parameters, texts in quotes, lists, weights."""

import re
from collections.abc import Mapping
from typing import Final

from django.utils.http import parse_header_parameters

STREAM: Final = "text/event-stream"
JSON: Final = "application/json"

# One member of a list, in which a comma may stand in quotes (RFC 9110, 5.6.1 and 5.6.4).
_MEMBER: Final = re.compile(r'(?:[^",]|"(?:[^"\\]|\\.)*"?)+')
_WEIGHT: Final = re.compile(r"0(\.\d{0,3})?|1(\.0{0,3})?")

Member = tuple[str, Mapping[str, str]]


def members(value: str) -> list[Member]:
    """The members of a list, each in lower case with its parameters; one that can't be read is left out."""
    return [member for text in _MEMBER.findall(value) if (member := _member(text))[0]]


def media_type(value: str) -> Member:
    """A media type in lower case, and its parameters; the empty one where there is none, or more than one."""
    found = members(value)
    return found[0] if len(found) == 1 else ("", {})


def asks_for_stream(accept: str) -> bool:
    """Whether this header Accept names the stream and prefers nothing else to it. A range like */* names no stream."""
    weights = {kind: _weight(parameters) for kind, parameters in members(accept)}
    stream = weights.get(STREAM, 0.0)
    json = next((weights[kind] for kind in (JSON, "application/*", "*/*") if kind in weights), 0.0)
    return stream > 0 and stream >= json


def preferences(value: str) -> set[str]:
    """The names in a header Prefer (RFC 7240)."""
    return {name.partition("=")[0].strip() for name, _parameters in members(value)}


def _member(text: str) -> Member:
    try:
        return parse_header_parameters(text)
    except ValueError:  # longer than Django reads
        return "", {}


def _weight(parameters: Mapping[str, str]) -> float:
    """The parameter q; 1 without one, and 0 where it is no weight."""
    text = parameters.get("q", "1")
    return float(text) if _WEIGHT.fullmatch(text) else 0.0
