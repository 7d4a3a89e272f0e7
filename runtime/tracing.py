"""Traces: all work on one thing shares a trace id, which is in W3C trace contexts and in log lines."""

import logging
import re
import secrets
from collections.abc import Sequence
from typing import Final
from uuid import UUID

# Version 00 of https://www.w3.org/TR/trace-context/#traceparent-header: version, trace, parent, flags.
_TRACEPARENT: Final = re.compile(rb"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")
# Maximum ids in one log line, about 7.5 KB. Docker, for one, splits lines at 16 KB.
IDS_OF_A_LINE: Final = 100


def traceparent(trace_id: UUID) -> str:
    """Return a W3C trace context for a new step (span) of the trace, with the sampled flag."""
    return f"00-{trace_id.hex}-{secrets.token_hex(8)}-01"


def trace_id_in(header: bytes) -> str | None:
    """Return the trace id in a traceparent header; None if the header is invalid."""
    match = _TRACEPARENT.fullmatch(header)
    return match[1].decode("ascii") if match else None


def log_traces(logger: logging.Logger, text: str, trace_ids: Sequence[UUID]) -> None:
    """Log a step that many traces took together in one line at INFO with their ids; `text` has a %d for their number.

    A line for each trace would cost more than the step. More than IDS_OF_A_LINE traces make several lines, and none
    make no line.
    """
    for start in range(0, len(trace_ids), IDS_OF_A_LINE):
        ids = [each.hex for each in trace_ids[start : start + IDS_OF_A_LINE]]
        logger.info(text, len(ids), extra={"trace_id": ids if len(ids) > 1 else ids[0]})
