"""Server-sent events, as specified in docs/openapi.yaml."""

from typing import Final

import msgspec

from authsvc.lights import TransactionState

# The client's reconnection delay, in milliseconds.
RETRY: Final = b"retry: 2000\n\n"
HEARTBEAT: Final = b": still here\n\n"
DELAYED: Final = b"event: delayed\ndata: {}\n\n"
STALLED: Final = b"event: stalled\ndata: {}\n\n"


def status_event(state: TransactionState, *, seen: int, with_took: bool = False) -> bytes:
    """Encode the event for a reader whose last seen version was `seen` (0: none). The event's ID is the version."""
    data = msgspec.json.encode(state.as_wire(with_took=with_took) | {"changed": state.changed_since(seen)})
    return b"event: status\nid: %d\ndata: %s\n\n" % (state.version, data)
