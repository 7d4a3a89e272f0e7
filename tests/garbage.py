"""Hypothesis strategies for invalid Kafka messages: bytes, arbitrary JSON, and almost valid JSON."""

import json
from collections.abc import Mapping
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from eventbus.messages import Header, Incoming

# The same examples every time, without an example database.
bounded = settings(
    max_examples=50, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)

# Raw JSON values, including ones that no JSON library writes.
ODD: tuple[bytes, ...] = (
    b"null", b"true", b"-1", b"0.5", b"1e999", b"1" + b"0" * 400, b"1" + b"0" * 5000, b"NaN", b"[]", b"{}", b'""',
    rb'"\u0000"', rb'"a\u0000b"', rb'"\ud800"', rb'"\udc00\ud800"', b'"\xff\xfe"', b'"\xed\xa0\x80"', b'"\x00"',
    b'"' + b"x" * 70_000 + b'"', '"\u0390\u0323\ufdfa"'.encode(), b'" "', b'"\'; DROP TABLE users; --"',
    b"[" * 100_000, b"[" * 5000 + b"]" * 5000, b'{"a":' * 5000 + b"1" + b"}" * 5000, b'["chat"]', b"[null]",
    b'"00000000-0000-0000-0000-000000000000"', b'"ffffffff-ffff-ffff-ffff-ffffffffffff"', b'"not-a-uuid"',
    b'"0001-01-01T00:00:00+23:59"', b'"9999-12-31T23:59:59.999999-23:59"', b'"2026-02-30T00:00:00Z"',
    b'"2026-01-01T00:00:00"', b'"SUCCESS"', b'"FAIL"', b'"PENDING"', b'"chat"', b'"auth"', b'"nobody"',
)  # fmt: skip


def any_json() -> SearchStrategy[Any]:
    scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
    return st.recursive(
        scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=9), inner), max_leaves=9
    )


@st.composite
def nearly(draw: st.DrawFn, good: Mapping[str, Any]) -> bytes:
    """Draw the valid document with up to three fields corrupted, removed or duplicated, and perhaps truncated."""
    fields = [(json.dumps(name).encode(), json.dumps(value).encode()) for name, value in good.items()]
    odd = st.sampled_from(ODD) | any_json().map(lambda value: json.dumps(value).encode())
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(fields) - 1))
        name, value = fields[place]
        match draw(st.sampled_from(["spoil", "spoil", "spoil", "leave out", "repeat"])):
            case "spoil":
                fields[place] = (name, draw(odd))
            case "leave out" if len(fields) > 1:
                del fields[place]
            case _:
                fields.append((name, draw(odd | st.just(value))))
    text = b"{" + b",".join(name + b":" + value for name, value in fields) + b"}"
    return text[: draw(st.integers(0, len(text)))] if draw(st.integers(0, 9)) == 0 else text


def values(*good: Mapping[str, Any]) -> SearchStrategy[bytes | None]:
    """Draw message values, some of them almost equal to one of these documents."""
    return st.one_of(
        st.none(),
        st.binary(max_size=50),
        st.sampled_from(ODD),
        any_json().map(lambda value: json.dumps(value).encode()),
        *(nearly(document) for document in good),
        *(nearly(document) for document in good),
    )


def headers() -> SearchStrategy[tuple[Header, ...]]:
    """Draw headers that confluent-kafka can return: a name is UTF-8 and ends before its first NUL."""
    names = st.sampled_from(["traceparent", "ce_id", "ce_type", "content-type", "dlt-offset", "dlt-value-bytes"])
    text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
    odd = st.sampled_from([b"9" * 5000, b"-1", b"\xff", b"\0", b"00-" + b"0" * 32 + b"-" + b"0" * 16 + b"-01"])
    header = st.tuples(names | text, st.none() | st.binary(max_size=50) | odd)
    return st.lists(header, max_size=6).map(tuple)


def messages(topic: str, *good: Mapping[str, Any]) -> SearchStrategy[list[Incoming]]:
    """Draw a few messages of this topic."""
    message = st.builds(
        Incoming,
        topic=st.just(topic),
        partition=st.integers(0, 3),
        offset=st.integers(0, 2**63 - 1),
        key=st.none() | st.binary(max_size=50),
        value=values(*good),
        headers=headers(),
        timestamp_ms=st.none() | st.integers(-(2**63), 2**63 - 1),
    )
    return st.lists(message, min_size=1, max_size=8)
