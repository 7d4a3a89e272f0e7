import asyncio
import gc
import json
import re
import time
import weakref
from collections.abc import AsyncIterator, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from channels.layers import get_channel_layer
from pytest_django.fixtures import Settings
from redis.asyncio import Redis

from signup_sync.front import gateway, relay_pool, stream_relay
from signup_sync.front.gateway import GatewayError, SubmittedUser
from signup_sync.front.relay_pool import RelayPool, group_of, relays
from signup_sync.front.tickets import new_signup_id
from tests.servers import ValkeyServer
from tests.servers.process import free_port
from tests.unit.signup_sync.front.auth_server import AuthServer, problem
from tests.unit.signup_sync.front.conftest import use_redis
from tests.waiting import eventually_async, must_hold

pytestmark = pytest.mark.usefixtures("front")


def read_again() -> None:
    """The result of reading a socket without data."""


@pytest.fixture
async def redis(valkey: ValkeyServer) -> AsyncIterator[Redis]:
    async with Redis.from_url(valkey.env["REDIS_URL"]) as client:
        yield client


async def is_leased(redis: Redis, signup_id: UUID) -> bool:
    return bool(await redis.exists(f"front:relay:{signup_id}"))


async def other_sign_up(auth: AuthServer, process: RelayPool) -> UUID:
    signup_id = new_signup_id()
    await process.sign_up(signup_id, SubmittedUser(user_id="a", user_name="b", email="c", password="d"))
    return signup_id


class Listener:
    """A member of the sign-up's group that records its messages."""

    def __init__(self, signup_id: UUID) -> None:
        self._group = group_of(signup_id)
        self.heard: list[dict[str, Any]] = []

    async def __aenter__(self) -> "Listener":
        layer = get_channel_layer()
        self._channel = await layer.new_channel()
        await layer.group_add(self._group, self._channel)
        self._task = asyncio.create_task(self._listen())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _listen(self) -> None:
        while True:
            self.heard.append(await get_channel_layer().receive(self._channel))

    @property
    def versions(self) -> list[int]:
        return [json.loads(message["text"])["version"] for message in self.heard]

    async def hears(self, version: int) -> None:
        """Return when this version is the last one received. Versions may be skipped, but never decrease."""

        async def is_heard() -> bool:
            must_hold(self.versions == sorted(self.versions), f"versions never fall: {self.versions}")
            return self.versions[-1:] == [version]

        await eventually_async(is_heard, what=f"version {version}")


async def is_left(auth: AuthServer, signup_id: UUID) -> None:
    async def nobody_reads() -> bool:
        return auth.streams[str(signup_id)] == 0

    await eventually_async(nobody_reads, what="no stream is open")


async def test_the_pool_returns_auths_verdict_and_relays_each_state(
    auth: AuthServer, signup_id: UUID, user: SubmittedUser
) -> None:
    async with Listener(signup_id) as listener:
        state = await relays().sign_up(signup_id, user)
        assert (state.version, state.services["auth"].status, state.complete) == (2, "SUCCESS", False)
        await auth.turn(str(signup_id), "chat", "FAIL", "duplicate: email")
        await auth.turn(str(signup_id), "customer", "SUCCESS")
        await listener.hears(4)
    await is_left(auth, signup_id)
    assert auth.posts[0][1]["userPw"] == user.password
    assert user.password not in repr(listener.heard)


async def test_the_next_sign_up_reuses_the_connection_of_a_complete_one(auth: AuthServer) -> None:
    for _ in range(3):
        signup_id = await other_sign_up(auth, relays())
        await auth.turn(str(signup_id), "chat", "SUCCESS")
        await auth.turn(str(signup_id), "customer", "SUCCESS")
        await is_left(auth, signup_id)
    assert len(auth.connections) == 1


async def test_a_sign_up_that_is_complete_soon_is_not_leased(
    auth: AuthServer, redis: Redis, signup_id: UUID, user: SubmittedUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_pool, "TEND_SECONDS", 60)
    monkeypatch.setattr(relay_pool, "LEASED_AFTER", 2)
    await relays().sign_up(signup_id, user)
    await auth.turn(str(signup_id), "chat", "SUCCESS")
    await auth.turn(str(signup_id), "customer", "SUCCESS")
    await is_left(auth, signup_id)
    slow = await other_sign_up(auth, relays())
    await eventually_async(lambda: is_leased(redis, slow), what="the slow one is leased")
    assert not await is_leased(redis, signup_id)


async def test_a_sign_up_that_another_process_has_just_posted_is_left_to_it(
    auth: AuthServer, other_process: RelayPool, signup_id: UUID, user: SubmittedUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_pool, "TAKEN_OVER_AFTER", 2.0)
    here, may_lease, asked, taken = relays(), asyncio.Event(), [], []
    lease_there, lease_here = other_process._lease, here._lease

    async def leases_late(signup_ids: Sequence[UUID], *, only_free: bool) -> list[UUID]:
        await may_lease.wait()
        return await lease_there(signup_ids, only_free=only_free)

    async def noted(signup_ids: Sequence[UUID], *, only_free: bool) -> list[UUID]:
        taken_now = await lease_here(signup_ids, only_free=only_free)
        asked.extend(signup_ids)
        taken.extend(taken_now)
        return taken_now

    monkeypatch.setattr(other_process, "_lease", leases_late)
    monkeypatch.setattr(here, "_lease", noted)
    await other_process.sign_up(signup_id, user)
    here.watch(signup_id, read_again)
    await eventually_async(lambda: asyncio.sleep(0, signup_id in here._orphans), what="it is seen, and not yet leased")
    may_lease.set()
    await eventually_async(lambda: asyncio.sleep(0, signup_id in asked), what="it would be taken over now")
    here.unwatch(signup_id, read_again)
    assert (taken, auth.resumed) == ([], [])


async def test_a_lost_stream_is_resumed_after_the_last_event(
    auth: AuthServer, signup_id: UUID, user: SubmittedUser
) -> None:
    async with Listener(signup_id) as listener:
        await relays().sign_up(signup_id, user)
        await auth.drop_streams()
        await auth.turn(str(signup_id), "chat", "SUCCESS")
        await auth.turn(str(signup_id), "customer", "SUCCESS")
        await listener.hears(4)
    assert (str(signup_id), "2") in auth.resumed


async def test_a_change_while_nobody_reads_is_not_lost(
    auth: AuthServer, signup_id: UUID, user: SubmittedUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_relay, "FIRST_PAUSE", 0.3)
    async with Listener(signup_id) as listener:
        await relays().sign_up(signup_id, user)
        await auth.drop_streams()
        await is_left(auth, signup_id)
        for service in ("chat", "customer"):
            await auth.turn(str(signup_id), service, "SUCCESS")
        await listener.hears(4)


async def test_two_posts_of_one_form_make_one_relay(auth: AuthServer, signup_id: UUID, user: SubmittedUser) -> None:
    first, second = await asyncio.gather(*(relays().sign_up(signup_id, user) for _ in range(2)))
    assert first.signup_id == second.signup_id
    assert len(auth.signups) == 1

    async def one_stream() -> bool:
        return auth.streams[str(signup_id)] == 1

    await eventually_async(one_stream, what="one stream is open")


async def test_a_browser_that_leaves_ends_no_sign_up(auth: AuthServer, signup_id: UUID, user: SubmittedUser) -> None:
    auth.may_answer.clear()

    async def is_posted() -> bool:
        return bool(auth.posts)

    async with Listener(signup_id) as listener:
        waiting = asyncio.create_task(relays().sign_up(signup_id, user))
        await eventually_async(is_posted)
        waiting.cancel()
        auth.may_answer.set()
        await listener.hears(2)


async def test_a_verdict_that_is_late_leaves_the_state_pending(
    auth: AuthServer, signup_id: UUID, user: SubmittedUser, settings: Settings
) -> None:
    settings.SIGNUP_DEADLINE = 0.2
    auth.verdict = None
    state = await relays().sign_up(signup_id, user)
    assert not state.is_answered


async def test_an_answer_lost_on_the_way_is_asked_for_once_more(
    auth: AuthServer, signup_id: UUID, user: SubmittedUser
) -> None:
    auth.problems = [problem(502)]
    await relays().sign_up(signup_id, user)
    assert [key for key, _ in auth.posts] == [str(signup_id)] * 2
    auth.problems = [problem(502), problem(502)]
    with pytest.raises(GatewayError):
        await relays().sign_up(signup_id, user)


async def test_silence_after_a_post_was_sent_is_a_lost_answer(
    auth: AuthServer, signup_id: UUID, user: SubmittedUser, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway, "POST_TIMEOUT", 2.0)
    settings.STREAM_HEARTBEAT = 0.1
    auth.may_answer.clear()
    waiting = asyncio.create_task(relays().sign_up(signup_id, user))

    async def is_posted_again() -> bool:
        must_hold(not waiting.done(), "the sign-up waits for its answer")
        return len(auth.posts) == 2

    await eventually_async(is_posted_again)
    auth.may_answer.set()
    assert (await waiting).signup_id == signup_id
    assert {key for key, _ in auth.posts} == {str(signup_id)}


async def test_a_gateway_that_hangs_costs_two_attempts_and_no_more(
    auth: AuthServer, signup_id: UUID, user: SubmittedUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway, "POST_TIMEOUT", 0.3)
    auth.may_answer.clear()
    async with asyncio.timeout(10):
        with pytest.raises(GatewayError, match="no response within"):
            await relays().sign_up(signup_id, user)
    assert len(auth.posts) == gateway.POST_ATTEMPTS


async def test_the_deadline_runs_from_the_press_of_the_button(
    auth: AuthServer, signup_id: UUID, user: SubmittedUser, settings: Settings
) -> None:
    settings.SIGNUP_DEADLINE = 3.0
    auth.verdict = None
    auth.may_answer.clear()
    loop = asyncio.get_running_loop()
    loop.call_later(2.0, auth.may_answer.set)
    began = loop.time()
    state = await relays().sign_up(signup_id, user)
    assert not state.is_answered
    assert loop.time() - began < 4.5  # 3 s, and not 2 s more


def test_the_page_waits_longer_than_the_server_may_take() -> None:
    script = (Path(__file__).parents[4] / "static" / "front" / "signup.js").read_text()
    waits = int(re.search(r"ANSWERED_WITHIN = ([\d_]+)", script)[1])
    assert waits > 1000 * gateway.POST_TIMEOUT * gateway.POST_ATTEMPTS


async def test_a_heartbeat_repeats_the_newest_state_and_the_delay(
    auth: AuthServer, signup_id: UUID, user: SubmittedUser
) -> None:
    await relays().sign_up(signup_id, user)
    async with Listener(signup_id) as listener:
        await auth.say(str(signup_id), b": still here\n\n")
        await listener.hears(2)
        assert listener.heard[-1]["slowness"] is None
        await auth.say(str(signup_id), b"event: delayed\ndata: {}\n\n")

        async def is_said() -> bool:
            return listener.heard[-1]["slowness"] == "delayed"

        await eventually_async(is_said)
        heard = len(listener.heard)
        await auth.say(str(signup_id), b": still here\n\n")

        async def is_said_again() -> bool:
            return len(listener.heard) > heard and listener.heard[-1]["slowness"] == "delayed"

        await eventually_async(is_said_again)


async def test_a_burst_of_changes_is_sent_once_with_the_newest(
    auth: AuthServer, signup_id: UUID, user: SubmittedUser
) -> None:
    await relays().sign_up(signup_id, user)
    async with Listener(signup_id) as listener:
        signup = auth.signups[str(signup_id)]
        events = b""
        for signup.version in range(3, 203):
            events += signup.event
        await auth.say(str(signup_id), events)
        await listener.hears(202)

        async def is_all_sent() -> bool:
            return not relays()._news

        await eventually_async(is_all_sent)
        last = {"type": "signup.news", "text": '{"version": 999}', "slowness": None}
        await get_channel_layer().group_send(group_of(signup_id), last)
        await listener.hears(999)
        assert len(listener.versions) < 100


async def test_a_sign_up_that_auth_does_not_have_any_more_is_given_up(
    auth: AuthServer, signup_id: UUID, user: SubmittedUser
) -> None:
    await relays().sign_up(signup_id, user)
    del auth.signups[str(signup_id)]
    await auth.drop_streams()

    async def is_given_up() -> bool:
        return not relays()._running

    await eventually_async(is_given_up)


async def test_messages_are_published_again_when_redis_is_back(
    auth: AuthServer, signup_id: UUID, user: SubmittedUser, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    with ValkeyServer() as own:
        use_redis(settings, own.env["REDIS_URL"])
        await relays().sign_up(signup_id, user)
        await asyncio.to_thread(own.kill)
        await auth.turn(str(signup_id), "chat", "SUCCESS")

        async def is_lost() -> bool:
            return "Redis is unavailable" in caplog.text

        await eventually_async(is_lost)
        await asyncio.to_thread(own.start)
        async with Listener(signup_id) as listener:
            await auth.say(str(signup_id), b": still here\n\n")
            await listener.hears(3)
        await relays().close()
        await get_channel_layer().flush()


async def test_few_states_of_complete_sign_ups_wait_for_redis(
    auth: AuthServer, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_pool, "ENDED_MAX", 2)
    use_redis(settings, f"redis://127.0.0.1:{free_port()}")
    running = await other_sign_up(auth, relays())
    for _ in range(5):
        signup_id = str(await other_sign_up(auth, relays()))
        for service in ("chat", "customer"):
            await auth.turn(signup_id, service, "SUCCESS")

    async def is_bounded() -> bool:
        return set(relays()._running) == {running} and len(relays()._news) == 3 and running in relays()._news

    await eventually_async(is_bounded)


async def test_a_message_that_cannot_be_published_stops_no_other(
    auth: AuthServer, signup_id: UUID, user: SubmittedUser, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    working = settings.CHANNEL_LAYERS
    settings.CHANNEL_LAYERS = {}
    await relays().sign_up(signup_id, user)

    async def is_logged() -> bool:
        return "can't be sent to its group" in caplog.text

    await eventually_async(is_logged)
    settings.CHANNEL_LAYERS = working
    async with Listener(signup_id) as listener:
        await auth.turn(str(signup_id), "chat", "SUCCESS")
        await listener.hears(3)


async def test_garbage_in_the_stream_ends_no_relay(auth: AuthServer, signup_id: UUID, user: SubmittedUser) -> None:
    async with Listener(signup_id) as listener:
        await relays().sign_up(signup_id, user)
        await auth.say(str(signup_id), b"event: status\ndata: {nonsense\n\n")
        await auth.turn(str(signup_id), "chat", "SUCCESS")
        await listener.hears(3)


async def test_a_watched_sign_up_is_taken_over_when_its_process_dies(
    auth: AuthServer, other_process: RelayPool, signup_id: UUID, user: SubmittedUser
) -> None:
    await other_process.sign_up(signup_id, user)
    relays().watch(signup_id, read_again)
    async with Listener(signup_id) as listener:
        await other_process.close()  # like kill -9: nothing is released
        await auth.turn(str(signup_id), "chat", "SUCCESS")
        await listener.hears(3)


async def test_a_lease_that_redis_would_keep_until_tomorrow_is_taken_over_all_the_same(
    auth: AuthServer, other_process: RelayPool, signup_id: UUID, user: SubmittedUser, redis: Redis
) -> None:
    await other_process.sign_up(signup_id, user)
    await eventually_async(lambda: is_leased(redis, signup_id), what="the lease is set")
    await other_process.close()
    # As if Redis's clock was a day ahead when the lease was set, and has been set back since.
    await redis.set(f"front:relay:{signup_id}", 1, ex=86_400)
    relays().watch(signup_id, read_again)
    async with Listener(signup_id) as listener:
        await auth.turn(str(signup_id), "chat", "SUCCESS")
        await listener.hears(3)


async def test_a_sign_up_that_another_process_relays_is_left_to_it(
    auth: AuthServer,
    other_process: RelayPool,
    signup_id: UUID,
    user: SubmittedUser,
    redis: Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Long enough for this process, which renews it, to wait for a core.
    monkeypatch.setattr(relay_pool, "LEASE_SECONDS", 3)
    await other_process.sign_up(signup_id, user)
    await eventually_async(lambda: is_leased(redis, signup_id), what="the lease is set")
    relays().watch(signup_id, read_again)
    # Longer than a lease: it can exist only because it was renewed.
    end = time.monotonic() + 1.5 * relay_pool.LEASE_SECONDS

    async def is_over() -> bool:
        must_hold(await is_leased(redis, signup_id), "the lease is renewed before it ends")
        return time.monotonic() > end

    await eventually_async(is_over)
    assert auth.resumed == []


async def test_a_sign_up_that_nobody_watches_any_more_is_not_taken_over(
    auth: AuthServer, other_process: RelayPool, signup_id: UUID, user: SubmittedUser, redis: Redis
) -> None:
    await other_process.sign_up(signup_id, user)
    await eventually_async(lambda: is_leased(redis, signup_id), what="the lease is set")
    watched = await other_sign_up(auth, other_process)

    def read_too() -> None: ...

    for watch in (relays().watch, relays().unwatch):
        for reads in (read_again, read_too):
            watch(signup_id, reads)
    relays().watch(watched, read_again)
    await other_process.close()

    async def is_taken_over() -> bool:
        return str(watched) in dict(auth.resumed)

    await eventually_async(is_taken_over, what="the sign-up that is watched is taken over")
    assert str(signup_id) not in dict(auth.resumed)


async def test_posts_above_the_limit_are_refused_at_once_and_accepted_later(
    auth: AuthServer, user: SubmittedUser, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_pool, "POSTS_MAX", 3)
    auth.may_answer.clear()
    waiting = [asyncio.create_task(relays().sign_up(new_signup_id(), user)) for _ in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(GatewayError) as refused:
        await relays().sign_up(new_signup_id(), user)
    assert (refused.value.status, refused.value.retry_after) == (503, 5)
    auth.may_answer.set()
    await asyncio.gather(*waiting)
    await relays().sign_up(new_signup_id(), user)


async def test_without_redis_signing_up_works(
    auth: AuthServer, signup_id: UUID, user: SubmittedUser, settings: Settings
) -> None:
    use_redis(settings, f"redis://127.0.0.1:{free_port()}/0")
    state = await relays().sign_up(signup_id, user)
    assert state.services["auth"].status == "SUCCESS"


async def test_a_relay_holds_nothing_of_the_request_that_began_it(
    auth: AuthServer, signup_id: UUID, user: SubmittedUser
) -> None:
    """Django's handler keeps a thread for as long as the context of its request lives."""

    class Request:
        pass

    current: ContextVar[Request] = ContextVar("current")

    async def handle() -> weakref.ref[Request]:
        request = Request()
        current.set(request)
        await relays().sign_up(signup_id, user)
        return weakref.ref(request)

    request = await asyncio.create_task(handle())

    async def is_forgotten() -> bool:
        gc.collect()
        return request() is None

    await eventually_async(is_forgotten, what="the request's context is gone")
    assert auth.streams[str(signup_id)] == 1
