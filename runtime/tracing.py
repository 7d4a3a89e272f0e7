"""What is about one thing is one trace: its id stands in W3C trace contexts and in the log lines."""

import logging
import re
import secrets
from collections.abc import Sequence
from typing import Final
from uuid import UUID

# Version 00 of https://www.w3.org/TR/trace-context/#traceparent-header: version, trace, parent, flags.
_TRACEPARENT: Final = re.compile(rb"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")
# Ids in one line: about 7.5 KB of it. Docker, for one, cuts lines at 16 KB.
IDS_OF_A_LINE: Final = 100


def traceparent(trace_id: UUID) -> str:
    """The W3C trace context of one step in a trace; the step has an id of its own, and is sampled."""
    return f"00-{trace_id.hex}-{secrets.token_hex(8)}-01"


def trace_id_in(header: bytes) -> str | None:
    """The trace that a traceparent names; None where it is none."""
    match = _TRACEPARENT.fullmatch(header)
    return match[1].decode("ascii") if match else None


def log_traces(logger: logging.Logger, text: str, trace_ids: Sequence[UUID]) -> None:
    """One line at INFO for a step that many traces took together, with all their ids; `text` has a %d for how many.

    A line for each would cost more than the step does. Many are several lines, none is none.
    """
    for start in range(0, len(trace_ids), IDS_OF_A_LINE):
        ids = [each.hex for each in trace_ids[start : start + IDS_OF_A_LINE]]
        logger.info(text, len(ids), extra={"trace_id": ids if len(ids) > 1 else ids[0]})
