from collections.abc import AsyncIterator

from signup_sync.front.sse import ServerEvent, read_events


async def events_of(text: bytes) -> list[ServerEvent]:
    async def lines() -> AsyncIterator[bytes]:
        for line in text.splitlines(keepends=True):
            yield line

    return [event async for event in read_events(lines())]


async def test_events_of_auth_are_read() -> None:
    text = b'retry: 2000\n\nevent: status\nid: 2\ndata: {"version": 2}\n\n: still here\n\nevent: delayed\ndata: {}\n\n'
    assert await events_of(text) == [
        ServerEvent("status", '{"version": 2}'),
        ServerEvent("comment"),
        ServerEvent("delayed", "{}"),
    ]


async def test_a_truncated_event_is_dropped() -> None:
    assert await events_of(b'event: status\ndata: {"version": 2}\n') == []


async def test_an_event_without_data_is_ignored() -> None:
    assert await events_of(b"event: status\n\ndata: x\n\n") == [ServerEvent("message", "x")]


async def test_lines_of_data_are_joined_and_any_line_end_is_accepted() -> None:
    assert await events_of(b"data: one\r\ndata:two\r\n\r\n") == [ServerEvent("message", "one\ntwo")]


async def test_unknown_fields_are_ignored() -> None:
    assert await events_of(b"colour: green\nnonsense\ndata: x\n\n") == [ServerEvent("message", "x")]
