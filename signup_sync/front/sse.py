"""Reading of a stream of server-sent events (WHATWG HTML, section 9.2.6)."""

from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass
from typing import Final

COMMENT: Final = "comment"


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One event; a comment is one of kind COMMENT without data. Ids and `retry` are not kept: the state in the data
    has its version, and the front has a pause of its own."""

    kind: str
    data: str = ""


async def read_events(lines: AsyncIterable[bytes]) -> AsyncIterator[ServerEvent]:
    """The events of a stream that is given in lines. An event that its blank line has not closed is not given."""
    kind, data = "message", list[str]()
    async for raw in lines:
        line = raw.decode(errors="replace").rstrip("\r\n")
        if not line:
            if data:
                yield ServerEvent(kind, "\n".join(data))
            kind, data = "message", []
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "":
            yield ServerEvent(COMMENT)
        elif field == "event":
            kind = value
        elif field == "data":
            data.append(value)
