"""Read the trace that a message belongs to from its headers."""

from collections.abc import Sequence

from eventbus.messages import Incoming
from runtime.tracing import IDS_OF_A_LINE, trace_id_in


def traceparent_of(message: Incoming) -> str | None:
    """Return the message's W3C trace context; None if it has none or an invalid one."""
    for name, value in message.headers:
        if name == "traceparent" and value is not None and trace_id_in(value):
            return value.decode("ascii")
    return None


def trace_of(message: Incoming) -> dict[str, str]:
    """Return the `extra` of a log line about this message: its trace_id, if it has one."""
    context = traceparent_of(message)
    return {} if context is None else {"trace_id": context.split("-")[1]}


def traces_of(messages: Sequence[Incoming]) -> dict[str, list[str]]:
    """Return the `extra` of a log line about several messages: the trace_ids of the first IDS_OF_A_LINE."""
    ids = [each["trace_id"] for each in map(trace_of, messages[:IDS_OF_A_LINE]) if each]
    return {"trace_id": ids} if ids else {}
