"""`POST /user` inside one process: the races that no client can time."""

import asyncio
import dataclasses
import json
import threading
from http import HTTPStatus
from uuid import uuid4

import pytest
from asgiref.sync import sync_to_async
from asgiref.testing import ApplicationCommunicator
from channels.db import database_sync_to_async
from django.db import DataError, OperationalError

from authsvc.api import hub as hub_module
from authsvc.api import registrar
from authsvc.api.application import SignUpApi
from authsvc.api.hub import StreamHub
from authsvc.api.problems import Problem
from authsvc.lights import Status, TransactionState, Verdict
from authsvc.models import SignUp
from authsvc.signups import publisher
from authsvc.signups import writer as writer_module
from authsvc.signups.events import NEW_USER_REQUESTED
from authsvc.signups.hash_pool import ENOUGH, HashPool
from authsvc.signups.projection import AsyncProjection, Projection
from authsvc.signups.registration import NewSignUp, register_new_users, register_users
from authsvc.signups.verdicts import ReportedVerdict, apply_verdicts
from authsvc.signups.writer import SignUpWriter
from authsvc.tickets import issue_ticket
from eventbus.messages import Outgoing
from eventbus.producer import EventProducer
from eventbus.topics import ensure_topics
from runtime.processes.bounded_pool import QueueFullError
from tests.client import read_topic
from tests.conftest import Person, new_person
from tests.contract.documents import check_response, states_of
from tests.contract.kafka_messages import is_meant
from tests.waiting import PATIENCE, eventually_async

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.needs("broker", "redis")]


@pytest.fixture(autouse=True)
def own_topics(settings):
    settings.KAFKA_PREFIX = f"signing-up-{uuid4()}-"
    ensure_topics([NEW_USER_REQUESTED])
    # Long, so that no heartbeat can hide a lost wake-up.
    settings.STREAM_HEARTBEAT = 600


def everybody_answers(signup_id) -> None:
    states = apply_verdicts(
        [ReportedVerdict(signup_id, Verdict(service, Status.SUCCESS)) for service in ("chat", "customer")]
    )
    Projection().write_and_wake(list(states.values()))


async def posted(api: SignUpApi, form: dict[str, str], signup_id) -> ApplicationCommunicator:
    """A `POST /user` that asks for the stream."""
    headers = {
        "content-type": "application/json", "accept": "text/event-stream", "idempotency-key": str(signup_id),
    }  # fmt: skip
    scope = {
        "type": "http", "method": "POST", "path": "/user",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }  # fmt: skip
    client = ApplicationCommunicator(api, scope)
    await client.send_input({"type": "http.request", "body": json.dumps(form).encode(), "more_body": False})
    return client


def new_signup(person: Person) -> NewSignUp:
    return NewSignUp(
        signup_id=uuid4(), user_id=person.user_id, email=person.email, user_name=person.user_name, role="ROLE_USER",
        password="not a hash",
    )  # fmt: skip


async def registered(signup_id) -> TransactionState:
    """The state of a sign-up that only auth has answered."""
    new = dataclasses.replace(new_signup(new_person()), signup_id=signup_id)
    [registration] = await database_sync_to_async(register_users, thread_sensitive=False)([new])
    return registration.state


async def asked_for(api: SignUpApi, signup_id, what: str = "", **headers: str) -> ApplicationCommunicator:
    """A `GET` of the sign-up with its ticket."""
    headers = {"signup-ticket": issue_ticket(signup_id)} | headers
    scope = {
        "type": "http", "method": "GET", "path": f"/user/signups/{signup_id}{what}",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }  # fmt: skip
    client = ApplicationCommunicator(api, scope)
    await client.send_input({"type": "http.request", "body": b"", "more_body": False})
    return client


async def body_of(client: ApplicationCommunicator) -> str:
    assert (await client.receive_output(timeout=20))["status"] == 200
    text = b""
    while True:
        part = await client.receive_output(timeout=20)
        text += part["body"]
        if not part.get("more_body"):
            break
    await client.wait(timeout=20)
    return text.decode()


async def data_of(client: ApplicationCommunicator) -> list[dict]:
    """The states of a stream, to its end."""
    return states_of(await body_of(client))


async def shown(api: SignUpApi, signup_id) -> dict:
    body = await body_of(await asked_for(api, signup_id))
    check_response("GET", f"/user/signups/{signup_id}", HTTPStatus.OK, "application/json", body.encode())
    return json.loads(body)


async def stream_of(api: SignUpApi, person: Person, signup_id) -> list[dict]:
    """The data of all events of a `POST /user`."""
    return await data_of(await posted(api, person.form, signup_id))


@pytest.fixture
def settled_at_once(monkeypatch):
    """Make a hub trust its subscription at once, so that no read of the database hides a lost wake-up."""
    monkeypatch.setattr(hub_module, "SETTLES_WITHIN", 0.0)


async def trusts_wake_ups_alone(hub: StreamHub) -> None:
    """Return when the hub has subscribed and then reread everything; from now on, it reads only with its heartbeat."""
    readings, read = [], hub._read_states

    async def counted(signup_ids):
        states = await read(signup_ids)
        readings.append(len(signup_ids))
        return states

    hub._read_states = counted
    with hub.watching(uuid4()):
        await eventually_async(lambda: asyncio.sleep(0, hub._hears_all), what="the hub has subscribed")
        before = len(readings)
        hub._reread_now.set()
        await eventually_async(lambda: asyncio.sleep(0, len(readings) > before), what="the hub has read again")
        await everything_has_run()


async def answered_while_nobody_listens(api: SignUpApi, signup_id) -> None:
    """Let all participants answer, and return when this process has handled their wake-up."""
    await trusts_wake_ups_alone(api._hub)
    # Another stream of the sign-up shows when the wake-up has arrived, without keeping it for the first one.
    with api._hub.watching(signup_id) as other:
        await database_sync_to_async(everybody_answers, thread_sensitive=False)(signup_id)
        await eventually_async(
            lambda: asyncio.sleep(0, other.state is not None and other.state.is_complete), what="the wake-up has come"
        )


@pytest.mark.usefixtures("settled_at_once")
async def test_answers_that_come_before_the_stream_is_held_are_not_missed(monkeypatch):
    api, person, signup_id = SignUpApi(), new_person(), uuid4()
    register = api._registrar.register

    async def registered_and_answered(*arguments):
        registration = await register(*arguments)
        await answered_while_nobody_listens(api, signup_id)
        return registration

    monkeypatch.setattr(api._registrar, "register", registered_and_answered)
    events = await stream_of(api, person, signup_id)
    await api.close()
    assert [event["version"] for event in events] in ([1, 3], [1, 2, 3])
    assert events[-1]["complete"]


@pytest.mark.usefixtures("settled_at_once")
async def test_answers_that_come_after_a_resumed_stream_has_read_its_state_are_not_missed(monkeypatch):
    api, signup_id = SignUpApi(), uuid4()
    await registered(signup_id)
    read = api._state

    async def read_and_answered(*arguments):
        state = await read(*arguments)
        await answered_while_nobody_listens(api, signup_id)
        return state

    monkeypatch.setattr(api, "_state", read_and_answered)
    events = await data_of(await asked_for(api, signup_id, "/events", **{"last-event-id": "2"}))
    await api.close()
    assert [(event["version"], event["complete"]) for event in events] == [(3, True)]


async def test_a_projection_that_is_not_complete_is_checked_in_the_database_and_corrected():
    """A write to the projection may have been lost."""
    api, signup_id = SignUpApi(), uuid4()
    old = await registered(signup_id)
    Projection().write_and_wake([old])
    verdict = ReportedVerdict(signup_id, Verdict("chat", Status.FAIL, "duplicate: email"))
    [answered] = (await database_sync_to_async(apply_verdicts, thread_sensitive=False)([verdict])).values()
    assert (await shown(api, signup_id))["version"] == answered.version == 3
    assert await api._projection.read(signup_id) == answered
    await api.close()


async def test_a_complete_projection_is_returned_without_reading_the_database(monkeypatch):
    api, signup_id = SignUpApi(), uuid4()
    await registered(signup_id)
    await database_sync_to_async(everybody_answers, thread_sensitive=False)(signup_id)
    reads = []
    monkeypatch.setattr(api, "_read_states", reads.append)
    state = await shown(api, signup_id)
    assert (state["complete"], reads) == (True, [])
    await api.close()


async def test_events_that_pages_have_queued_are_published_before_the_process_ends(settings):
    api, count, value = SignUpApi(), 2000, b"queued by a page"
    is_meant(NEW_USER_REQUESTED, value)
    publisher.publish([Outgoing(NEW_USER_REQUESTED, str(n), value) for n in range(count)])
    shared = publisher.producer()
    await api.close()
    arrived = read_topic(settings.KAFKA_BOOTSTRAP_SERVERS, settings.KAFKA_PREFIX + NEW_USER_REQUESTED)
    assert len(arrived) == count
    assert not shared._poller.is_alive()


@pytest.fixture
async def writer():
    projection = AsyncProjection()
    writer = SignUpWriter(EventProducer(), projection, HashPool(limit=1))
    yield writer
    async with asyncio.timeout(PATIENCE):
        await writer.close()
    await projection.close()


async def count(**filters) -> int:
    return await database_sync_to_async(SignUp.objects.filter(**filters).count, thread_sensitive=False)()


@pytest.fixture
def sizes(monkeypatch) -> list[int]:
    """The sizes of the written batches."""
    sizes = []

    def counting(batch):
        sizes.append(len(batch))
        return register_new_users(batch)

    monkeypatch.setattr(writer_module, "register_new_users", counting)
    return sizes


async def begin(writer: SignUpWriter, n: int) -> list[asyncio.Future]:
    """Begin so many sign-ups, and return when the writer has seen each of them in its queue."""
    begun = [asyncio.ensure_future(writer.register(new_signup(new_person()))) for _ in range(n)]
    await everything_has_run()
    return begun


async def everything_has_run() -> None:
    """Return when all tasks that need no thread or server have run."""
    for _ in range(10):
        await asyncio.sleep(0)


async def end(*begun: asyncio.Future) -> list:
    async with asyncio.timeout(PATIENCE):
        return await asyncio.gather(*begun)


async def test_a_batch_begins_when_as_many_sign_ups_wait_for_it_as_for_a_hash(writer, sizes, monkeypatch):
    monkeypatch.setattr(HashPool, "waiting", 5)
    four = await begin(writer, 4)
    before = list(sizes)
    await end(*four, *await begin(writer, 1))
    assert (before, sizes) == ([], [5])


async def test_a_batch_begins_after_enough_hashes_even_if_most_passwords_were_refused(writer, sizes, monkeypatch):
    """While refused passwords arrive as fast as they are hashed, the number of waiting passwords stays constant."""
    monkeypatch.setattr(HashPool, "waiting", 300)
    one = await begin(writer, 1)
    for _ in range(ENOUGH - 1):
        writer._hashes.note_hashed()
    await everything_has_run()
    before = list(sizes)
    writer._hashes.note_hashed()
    await end(*one)
    assert (before, sizes) == ([], [1])


async def test_a_batch_that_is_large_enough_begins_at_once(writer, sizes, monkeypatch):
    monkeypatch.setattr(HashPool, "waiting", 1000)
    await end(*await begin(writer, ENOUGH))
    assert sizes == [ENOUGH]


async def test_without_waiting_passwords_a_sign_up_does_not_wait_for_a_batch(writer, sizes):
    for _ in range(3):
        await end(asyncio.ensure_future(writer.register(new_signup(new_person()))))
    assert sizes == [1, 1, 1]


async def test_a_batch_does_not_wait_for_refused_passwords(sizes, monkeypatch):
    """The sign-up that was hashed before them is saved, although no other one follows."""
    api, gate = SignUpApi(), threading.Event()
    monkeypatch.setitem(vars(api), "_hashes", HashPool(threads=1, limit=20))

    def checked(request, language):
        if request.password != "refused-later":
            return "not a hash"
        gate.wait(PATIENCE)
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "too weak")

    monkeypatch.setattr(registrar, "_checked_hash", checked)
    taken, *refused = [new_person().form for _ in range(6)]
    clients = [
        await posted(api, form, uuid4()) for form in (taken, *(form | {"userPw": "refused-later"} for form in refused))
    ]
    await eventually_async(lambda: asyncio.sleep(0, len(api._writer._queue) == 1), what="one is hashed, and waits")
    await everything_has_run()
    before = list(sizes)
    gate.set()
    statuses = [(await client.receive_output(timeout=PATIENCE))["status"] for client in clients]
    assert (before, sizes, statuses) == ([], [1], [200] + [422] * 5)
    api.drain()
    for client in clients:
        await client.wait(timeout=PATIENCE)
    await api.close()


async def test_new_users_are_saved_even_if_known_users_in_the_batch_are_refused(writer, monkeypatch):
    known, stranger = new_signup(new_person()), new_signup(new_person())
    await writer.register(known)

    def failing(batch):
        raise OperationalError("the database has gone in between")

    monkeypatch.setattr(writer_module, "register_users", failing)
    sent = []
    monkeypatch.setattr(writer._producer, "send", sent.append)
    results = await asyncio.gather(*[writer.register(each) for each in (known, stranger)], return_exceptions=True)
    assert isinstance(results[0], OperationalError)
    assert results[1].is_new
    assert len(sent) == 1


async def test_sign_ups_that_arrive_together_share_few_transactions(writer, sizes):
    await asyncio.gather(*[writer.register(new_signup(new_person())) for _ in range(200)])
    assert sum(sizes) == 200
    assert len(sizes) <= 3
    assert await count() == 200


async def test_a_sign_up_that_cannot_be_saved_does_not_fail_the_others(writer, monkeypatch):
    bad, *good = [new_signup(new_person()) for _ in range(5)]

    def refusing(batch):
        if bad in batch:
            raise DataError("this one the database does not take")
        return register_new_users(batch)

    monkeypatch.setattr(writer_module, "register_new_users", refusing)
    results = await asyncio.gather(*[writer.register(each) for each in (bad, *good)], return_exceptions=True)
    assert isinstance(results[0], DataError)
    assert [result.is_new for result in results[1:]] == [True] * 4


async def test_more_sign_ups_than_may_wait_are_refused_at_once_and_those_that_wait_are_saved(writer, monkeypatch):
    database_hangs = threading.Event()

    def hanging(batch):
        database_hangs.wait(60)
        return register_new_users(batch)

    monkeypatch.setattr(writer_module, "register_new_users", hanging)
    monkeypatch.setattr(writer_module, "WAITING_MAX", 3)
    in_hand = asyncio.create_task(writer.register(new_signup(new_person())))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    waiting = [asyncio.create_task(writer.register(new_signup(new_person()))) for _ in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(QueueFullError):
        await writer.register(new_signup(new_person()))
    database_hangs.set()
    assert [each.is_new for each in await asyncio.gather(in_hand, *waiting)] == [True] * 4
    assert (await writer.register(new_signup(new_person()))).is_new


async def test_a_confirmation_that_waits_for_a_hanging_database_is_abandoned_and_not_saved_later(writer, monkeypatch):
    released, begun, made = threading.Event(), threading.Event(), []

    def hanging(batch):
        begun.set()
        released.wait(PATIENCE)
        return register_new_users(batch)

    monkeypatch.setattr(writer_module, "register_new_users", hanging)
    monkeypatch.setattr(writer_module, "SAVED_WITHIN", 0.2)
    in_hand = asyncio.create_task(writer.register(new_signup(new_person())))
    await eventually_async(sync_to_async(begun.is_set))
    with pytest.raises(TimeoutError):
        await writer.confirm(lambda: made.append(1))
    released.set()
    with pytest.raises(TimeoutError):
        await in_hand
    monkeypatch.setattr(writer_module, "SAVED_WITHIN", PATIENCE)
    monkeypatch.setattr(writer_module, "register_new_users", register_new_users)
    assert (await writer.register(new_signup(new_person()))).is_new
    assert made == []


async def test_a_client_that_leaves_does_not_stop_its_sign_up(writer):
    new = new_signup(new_person())
    waiting = asyncio.create_task(writer.register(new))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    async with asyncio.timeout(PATIENCE):
        assert (await writer.register(new)).signup.id == new.signup_id
    assert await count(id=new.signup_id) == 1
