"""Parser for streams of server-sent events (WHATWG HTML, section 9.2.6)."""

from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass
from typing import Final

COMMENT: Final = "comment"


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One event, or a comment (kind COMMENT, no data). Ids and `retry` are dropped: the state in the data has its
    version, and the front has its own backoff."""

    kind: str
    data: str = ""


async def read_events(lines: AsyncIterable[bytes]) -> AsyncIterator[ServerEvent]:
    """Yield the events of a stream of lines. An event that no blank line ends is not yielded."""
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
