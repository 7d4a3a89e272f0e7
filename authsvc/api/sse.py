"""Server-sent events, as the contract spells them."""

from typing import Final

import msgspec

from authsvc.lights import SignUpState

# How long a client waits before it comes back, in milliseconds.
RETRY: Final = b"retry: 2000\n\n"
HEARTBEAT: Final = b": still here\n\n"
DELAYED: Final = b"event: delayed\ndata: {}\n\n"
STALLED: Final = b"event: stalled\ndata: {}\n\n"


def status_event(state: SignUpState, *, seen: int, with_took: bool = False) -> bytes:
    """The event for a reader whose last version was `seen` (0: none). Its data is one line, its id the version."""
    data = msgspec.json.encode(state.as_wire(with_took=with_took) | {"changed": state.changed_since(seen)})
    return b"event: status\nid: %d\ndata: %s\n\n" % (state.version, data)
