import asyncio
import json
from datetime import timedelta
from uuid import UUID

import msgspec
import pytest
from django.utils import timezone

from authsvc.api.hub import Watch
from authsvc.api.streams import after_first, follow
from authsvc.lights import Status, TransactionState, Verdict
from tests.waiting import PATIENCE

SERVICES = ["auth", "chat", "customer"]


@pytest.fixture
def begun() -> TransactionState:
    return TransactionState.all_pending(UUID(int=7), started_at=timezone.now(), services=SERVICES)


def decide(state: TransactionState, *services: str) -> TransactionState:
    return state.decided([Verdict(service, Status.SUCCESS) for service in services], at=timezone.now())


def parts(text: bytes) -> list[bytes]:
    """Return its events and comments; a text may contain several."""
    return [part + b"\n\n" for part in text.split(b"\n\n")[:-1]]


async def read(stream) -> list[bytes]:
    async with asyncio.timeout(PATIENCE):
        return [part async for text in stream for part in parts(text)]


async def take(stream, n: int) -> list[bytes]:
    """Return the next `n` events."""
    taken: list[bytes] = []
    async with asyncio.timeout(PATIENCE):
        while len(taken) < n:
            taken += parts(await anext(stream))
    assert len(taken) == n
    return taken


def ids(texts: list[bytes]) -> list[int]:
    return [int(line[4:]) for text in texts for line in text.decode().splitlines() if line.startswith("id: ")]


def changed(texts: list[bytes]) -> list[list[str]]:
    return [
        json.loads(line[6:])["changed"]
        for text in texts
        for line in text.decode().splitlines()
        if line.startswith("data: {") and line != "data: {}"
    ]


async def test_a_new_sign_up_is_shown_pending_then_with_auths_verdict_then_to_its_end(begun):
    watch = Watch()
    judged = decide(begun, "auth")
    watch.offer(decide(decide(judged, "chat"), "customer"))
    texts = await read(follow(watch, [begun, judged], seen=0))
    assert texts[0] == b"retry: 2000\n\n"
    assert texts[1] == (
        b'event: status\nid: 1\ndata: {"signupId":"00000000-0000-0000-0000-000000000007","version":1,"complete":false,'
        b'"services":{"auth":{"status":"PENDING"},"chat":{"status":"PENDING"},"customer":{"status":"PENDING"}},'
        b'"changed":["auth","chat","customer"]}\n\n'
    )
    # A state that the watch already has is sent at once: versions may be skipped.
    assert ids(texts) == [1, 4]
    assert changed(texts) == [SERVICES, ["auth", "chat", "customer"]]


async def test_each_change_is_sent_once_and_older_states_are_not_sent(begun):
    watch = Watch()
    judged = decide(begun, "auth")
    stream = follow(watch, [begun, judged], seen=0)
    texts = await take(stream, 3)
    watch.offer(begun)
    watch.offer(judged)
    watch.offer(decide(judged, "chat"))
    texts += await take(stream, 1)
    watch.offer(decide(decide(judged, "chat"), "customer"))
    texts += await read(stream)
    assert ids(texts) == [1, 2, 3, 4]
    assert changed(texts) == [SERVICES, ["auth"], ["chat"], ["customer"]]


async def test_a_reader_that_reconnects_gets_the_unseen_changes(begun):
    state = decide(decide(decide(begun, "auth"), "chat"), "customer")
    texts = await read(follow(Watch(), [state], seen=3))
    assert ids(texts) == [4]
    assert changed(texts) == [["customer"]]


async def test_a_stream_reports_delayed_once_and_stays_open(begun, settings):
    settings.STREAM_HEARTBEAT = 0.05
    late = TransactionState.all_pending(
        begun.transaction_id, started_at=timezone.now() - timedelta(hours=1), services=SERVICES
    )
    watch = Watch()
    stream = follow(watch, [late], seen=1)
    texts = await take(stream, 4)
    assert texts[1:] == [b"event: delayed\ndata: {}\n\n", b": still here\n\n", b": still here\n\n"]
    watch.offer(decide(late, *SERVICES))
    assert ids(await read(stream)) == [2]


async def test_a_waiting_stream_adopts_a_changed_deadline_and_heartbeat(begun, settings):
    settings.SIGNUP_DEADLINE = settings.STREAM_HEARTBEAT = 500
    watch = Watch()
    stream = follow(watch, [begun], seen=0)
    assert ids(await take(stream, 2)) == [1]
    waiting = asyncio.ensure_future(anext(stream))
    await asyncio.wait([waiting], timeout=0.05)
    settings.SIGNUP_DEADLINE, settings.STREAM_HEARTBEAT = 0.01, 0.01
    watch.ring()
    async with asyncio.timeout(PATIENCE):
        texts = parts(await waiting)
    texts += await take(stream, 3 - len(texts))
    assert texts == [b"event: delayed\ndata: {}\n\n", b": still here\n\n", b": still here\n\n"]


async def test_delayed_is_reported_in_time_even_for_a_sign_up_dated_tomorrow(begun, settings):
    """The clock was a day ahead when the sign-up began, and has been set back since."""
    settings.SIGNUP_DEADLINE = 0.05
    services = {"started_at": timezone.now() + timedelta(days=1), "services": SERVICES}
    stream = follow(Watch(), [TransactionState.all_pending(begun.transaction_id, **services)], seen=1)
    async with asyncio.timeout(PATIENCE):
        texts = await take(stream, 2)
    assert texts[-1] == b"event: delayed\ndata: {}\n\n"


async def test_a_stream_reports_stalled_once_and_stays_open(begun, settings):
    settings.STREAM_HEARTBEAT = 0.05
    watch = Watch()
    judged = decide(begun, "auth")
    stream = follow(watch, [judged], seen=2)
    texts = await take(stream, 2)
    stalled = msgspec.structs.replace(judged, is_stalled=True)
    watch.offer(stalled)
    texts += await take(stream, 3)
    assert texts[1:] == [b": still here\n\n", b"event: stalled\ndata: {}\n\n", b": still here\n\n", b": still here\n\n"]
    watch.offer(decide(stalled, "chat", "customer"))
    assert ids(await read(stream)) == [3]


async def test_a_later_reader_gets_the_stalled_event(begun):
    watch = Watch()
    stream = follow(watch, [msgspec.structs.replace(begun, is_stalled=True)], seen=0)
    texts = await take(stream, 3)
    assert (ids(texts), texts[2]) == ([1], b"event: stalled\ndata: {}\n\n")
    await stream.aclose()


async def test_a_stream_ends_when_the_client_leaves_or_at_its_maximum_age(begun, settings):
    watch = Watch()
    watch.close()
    assert ids(await read(follow(watch, [begun], seen=0))) == []
    settings.STREAM_MAX_AGE = 0.05
    assert ids(await read(follow(Watch(), [begun], seen=0))) == [1]


async def test_an_unconfirmed_sign_up_is_never_delayed_and_its_deadline_begins_when_it_is_confirmed(begun, settings):
    settings.SIGNUP_DEADLINE, settings.STREAM_HEARTBEAT = 1, 1
    old = timezone.now() - timedelta(hours=23)
    watch, unconfirmed = Watch(), msgspec.structs.replace(begun, started_at=old, is_unconfirmed=True)
    stream = follow(watch, [unconfirmed], seen=0)
    texts = await take(stream, 4)
    assert b'"awaiting":"confirmation"' in texts[1]
    assert texts[2:] == [b": still here\n\n"] * 2
    settings.STREAM_HEARTBEAT = 600
    confirmed = decide(msgspec.structs.replace(begun, started_at=timezone.now()), "auth")
    watch.offer(confirmed)
    [text] = await take(stream, 1)
    assert ids([text]) == [2]
    assert b"awaiting" not in text
    # From now on it is delayed.
    assert await take(stream, 1) == [b"event: delayed\ndata: {}\n\n"]
    watch.offer(decide(confirmed, "chat", "customer"))
    assert ids(await read(stream)) == [3]


@pytest.mark.parametrize("has_left", [True, False])
async def test_the_call_after_an_answer_is_made_once_the_first_text_is_sent_or_the_reader_has_left(begun, has_left):
    done = []
    stream = after_first(follow(Watch(), [begun], seen=0), lambda: done.append(True))
    assert b"id: 1" in await anext(stream)
    assert done == []
    if has_left:
        await stream.aclose()
    else:
        waiting = asyncio.create_task(anext(stream))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    assert done == [True]
