"""`manage.py replay_signups` and the relay, on the broker of the chosen stack."""

import asyncio
import json
import threading
from datetime import timedelta
from io import StringIO
from uuid import UUID, uuid4

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from authsvc.lights import Kind, Status, TransactionState, Verdict
from authsvc.management.commands.relay_signups import OutboxRelay
from authsvc.models import SignUp, User
from authsvc.signups import publisher
from authsvc.signups.changes import change_account, remove_account
from authsvc.signups.events import NEW_USER_REQUESTED, REQUEST_TOPICS
from authsvc.signups.projection import AsyncProjection
from authsvc.signups.replay import replay as replay_all
from authsvc.signups.verdicts import ReportedVerdict, apply_verdicts
from eventbus.producer import EventProducer
from eventbus.topics import ensure_topics
from tests.broker import put, skip_to_the_end
from tests.client import read_topic
from tests.signups import complete, save_signups
from tests.waiting import PATIENCE

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.needs("broker", "redis")]


@pytest.fixture(autouse=True)
def own_topics(settings):
    settings.KAFKA_PREFIX = f"replay-{uuid4()}-"
    ensure_topics(REQUEST_TOPICS.values())


@pytest.fixture
def sent(settings):
    """The messages of the topic, as (sign-up, services asked or None), sorted."""

    def read() -> list[tuple[UUID, list[str] | None]]:
        messages = read_topic(settings.KAFKA_BOOTSTRAP_SERVERS, settings.KAFKA_PREFIX + NEW_USER_REQUESTED)
        events = [json.loads(message.value) for message in messages]
        return sorted((UUID(event["signupId"]), event.get("services")) for event in events)

    return read


def replay(*arguments: str) -> str:
    out = StringIO()
    call_command("replay_signups", *arguments, stdout=out)
    return out.getvalue().strip()


def everyone(*signup_ids: UUID) -> list[tuple[UUID, None]]:
    return sorted((each, None) for each in signup_ids)


def test_all_sign_ups_are_sent_and_no_decided_light_changes(sent):
    kim, lee = save_signups("kim", "lee")
    complete(kim, lee)
    before = list(SignUp.objects.order_by("id").values())
    assert replay("--all") == "2 sent, 0 skipped, 0 failed"
    assert sent() == everyone(kim, lee)
    assert list(SignUp.objects.order_by("id").values()) == before


def test_a_replay_continues_past_its_first_page(sent, monkeypatch):
    monkeypatch.setattr("authsvc.signups.replay.PAGE", 3)
    signups = save_signups(*[f"user-{n}" for n in range(10)])
    assert replay("--all") == "10 sent, 0 skipped, 0 failed"
    assert sent() == everyone(*signups)


def test_only_the_next_page_is_read_while_kafka_acknowledges_the_previous_one(monkeypatch):
    monkeypatch.setattr("authsvc.signups.replay.PAGE", 2)
    save_signups(*[f"user-{n}" for n in range(7)])
    on_their_way = []

    class Watched(EventProducer):
        def begin_all(self, messages, *, timeout):
            on_their_way.append(len(messages))
            return super().begin_all(messages, timeout=timeout)

    producer = Watched()
    seen = []
    for counts in replay_all(SignUp.objects.all(), producer=producer):
        seen.append(list(on_their_way))
        del on_their_way[0]
        assert counts.failed == 0
    assert seen == [[2, 2], [2, 2], [2, 1], [1]]
    producer.close(timeout=5)


def test_a_page_takes_two_reads_and_a_write_only_if_a_light_is_pending(sent, monkeypatch, django_assert_num_queries):
    monkeypatch.setattr("authsvc.signups.replay.PAGE", 2)
    complete(*save_signups(*[f"done-{n}" for n in range(4)]))
    producer = EventProducer()
    with django_assert_num_queries(5) as reads:  # the last of them finds that there are no more
        list(replay_all(SignUp.objects.all(), producer=producer))
    # The number of pages does not matter: each begins where the previous one ended.
    assert reads[-1]["sql"].count(">") == 1
    SignUp.objects.update(pending_count=1)
    with django_assert_num_queries(5 + 2 * 3):  # a write is a transaction that is begun and committed
        list(replay_all(SignUp.objects.all(), producer=producer))
    producer.close(timeout=5)


def test_a_replay_selects_sign_ups_by_id_or_user_id(sent):
    kim, lee, _park = save_signups("kim", "lee", "park")
    assert replay("--id", str(kim)) == "1 sent, 0 skipped, 0 failed"
    assert replay("--user-id", "LEE") == "1 sent, 0 skipped, 0 failed"
    assert sent() == everyone(kim, lee)


def test_a_replay_selects_sign_ups_by_time(sent):
    old, new = save_signups("old", "new")
    SignUp.objects.filter(id=old).update(created_at=timezone.now() - timedelta(days=2))
    yesterday = (timezone.now() - timedelta(days=1)).isoformat()
    replay("--until", yesterday)
    assert sent() == everyone(old)
    replay("--since", yesterday)
    assert sent() == everyone(old, new)


def test_pending_and_stalled_sign_ups_get_all_their_attempts_again(sent):
    pending, stalled, done = save_signups("pending", "stalled", "done")
    complete(done)
    SignUp.objects.filter(id=stalled).update(stalled_at=timezone.now(), next_due_at=None, attempts=33)
    assert replay("--stalled") == "1 sent, 0 skipped, 0 failed"
    assert sent() == everyone(stalled)
    again = SignUp.objects.get(id=stalled)
    assert (again.attempts, again.stalled_at) == (1, None)
    assert again.next_due_at > timezone.now()
    assert replay("--pending") == "2 sent, 0 skipped, 0 failed"
    assert sent() == everyone(stalled, stalled, pending)


def test_with_the_service_option_no_other_service_is_asked(sent):
    [kim] = save_signups("kim")
    replay("--all", "--service", "chat")
    assert sent() == [(kim, ["chat"])]


def test_a_service_that_was_added_later_gets_a_light(sent):
    [kim] = save_signups("kim")
    complete(kim)
    SignUp.objects.update(lights={name: light for name, light in SignUp.objects.get().lights.items() if name != "chat"})
    version = SignUp.objects.get().version
    replay("--all", "--service", "chat")
    signup = SignUp.objects.get()
    assert (signup.state.pending, signup.version, signup.completed_at) == (["chat"], version + 1, None)
    assert signup.next_due_at is not None
    assert not asyncio.run(copy_of(kim)).is_complete
    complete(kim)
    assert SignUp.objects.get().state.is_complete


async def copy_of(signup_id: UUID) -> TransactionState | None:
    projection = AsyncProjection()
    try:
        return await projection.read(signup_id)
    finally:
        await projection.close()


def test_auths_present_record_is_sent_and_sign_ups_without_one_are_skipped(sent, settings):
    kim, _lee = save_signups("kim", "lee")
    User._base_manager.filter(user_id="kim").update(email="new@example.com")
    User.objects.filter(user_id="lee").delete()
    assert replay("--all") == "1 sent, 1 skipped, 0 failed"
    assert sent() == everyone(kim)
    [message] = read_topic(settings.KAFKA_BOOTSTRAP_SERVERS, settings.KAFKA_PREFIX + NEW_USER_REQUESTED)
    assert json.loads(message.value)["email"] == "new@example.com"


def test_of_a_removed_account_only_the_removal_is_sent_and_of_a_changed_one_the_newest_record(settings):
    save_signups("kim", "lee")
    for name in ("kim", "lee"):
        user = User.objects.get(user_id=name)
        user.user_name = "Changed"
        assert change_account(user) is not None
    removal = remove_account(User.objects.get(user_id="kim"))
    publisher.close()
    assert replay("--all") == "3 sent, 2 skipped, 0 failed"
    assert replay("--id", str(removal.id)) == "1 sent, 0 skipped, 0 failed"
    # Two changes and a replay of one; one removal and two replays.
    for kind, versions in ((Kind.SIGNUP, [2]), (Kind.CHANGE, [2, 2, 2]), (Kind.REMOVAL, [3, 3, 3])):
        topic = settings.KAFKA_PREFIX + REQUEST_TOPICS[kind]
        messages = read_topic(settings.KAFKA_BOOTSTRAP_SERVERS, topic)
        assert [json.loads(message.value)["version"] for message in messages] == versions


def test_a_dry_run_counts_and_sends_nothing(sent):
    save_signups("kim")
    before = list(SignUp.objects.values())
    assert replay("--all", "--dry-run") == "1 would be sent, 0 skipped, 0 failed"
    assert sent() == []
    assert list(SignUp.objects.values()) == before


@pytest.mark.parametrize(
    ("user_ids", "words"),
    [
        (["kim"], "could not be sent\\. "),
        (["kim", "lee", "park"], "could not be sent, and 2 were not attempted"),
    ],
)
def test_a_replay_counts_unsent_sign_ups_and_ends_at_the_first_page_of_which_kafka_accepts_nothing(
    settings, monkeypatch, user_ids, words
):
    save_signups(*user_ids)
    monkeypatch.setattr("authsvc.signups.replay.PAGE", 1)
    monkeypatch.setattr("authsvc.signups.replay.ACKNOWLEDGED_WITHIN", 0.5)
    settings.KAFKA_BOOTSTRAP_SERVERS = "127.0.0.1:1"
    out = StringIO()
    with pytest.raises(CommandError, match=words):
        call_command("replay_signups", "--all", stdout=out)
    assert out.getvalue().strip() == "0 sent, 0 skipped, 1 failed"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "Give at least one of --id"),
        (["--dry-run"], "Give at least one of --id"),
        (["--id", "nonsense"], "nonsense"),
        (["--id", str(UUID(int=1))], "There is no sign-up"),
        (["--user-id", "nobody"], "There is no sign-up, change or removal of nobody"),
        (["--since", "yesterday"], "is not an ISO date or time"),
        (["--since", "2026-02-31"], "is not an ISO date or time"),
        (["--all", "--service", "auth"], "invalid choice"),
    ],
)
def test_an_invalid_selection_is_refused_with_a_message(arguments, words):
    with pytest.raises(CommandError, match=words):
        replay(*arguments)


@pytest.fixture
def relay(patient, monkeypatch):
    # Its first message opens the connections.
    monkeypatch.setattr("authsvc.management.commands.relay_signups.ACKNOWLEDGED_WITHIN", PATIENCE)
    relay = OutboxRelay(threading.Event())
    yield relay
    relay.close()


def test_the_relay_publishes_due_sign_ups_to_the_services_that_have_not_answered(sent, relay):
    kim, lee = save_signups("kim", "lee")
    apply_verdicts([ReportedVerdict(kim, Verdict("chat", Status.SUCCESS))])
    assert relay.relay_once() == 0
    SignUp.objects.update(next_due_at=timezone.now())
    assert relay.relay_once() == 2
    assert relay.relay_once() == 0
    assert sent() == sorted([(kim, ["customer"]), (lee, ["chat", "customer"])])


def test_the_relay_sends_a_tenth_while_more_than_a_seconds_events_are_unread(settings, relay):
    settings.RELAY_RATE = 20
    save_signups(*(f"user{number}" for number in range(30)))
    put(NEW_USER_REQUESTED, *[b"{}"] * 20)
    SignUp.objects.update(next_due_at=timezone.now())
    assert relay.relay_once() == 2

    for participant in ("chat", "customer"):
        skip_to_the_end(NEW_USER_REQUESTED, group=participant)
    assert relay.relay_once() == 20


def test_a_relay_without_kafka_leaves_sign_ups_due_and_uses_up_no_attempts(settings, monkeypatch):
    [kim] = save_signups("kim")
    monkeypatch.setattr("authsvc.management.commands.relay_signups.ACKNOWLEDGED_WITHIN", 0.2)
    settings.KAFKA_BOOTSTRAP_SERVERS = "127.0.0.1:1"
    relay = OutboxRelay(threading.Event())
    try:
        for _ in range(3):
            SignUp.objects.update(next_due_at=timezone.now())
            assert relay.relay_once() == 0
    finally:
        relay.close()
    signup = SignUp.objects.get(id=kim)
    assert signup.next_due_at > timezone.now()
    assert (signup.attempts, signup.stalled_at) == (1, None)


def test_all_messages_of_a_sign_up_share_one_trace(settings):
    kim, lee = save_signups("kim", "lee")
    replay("--all")
    replay("--all")
    messages = read_topic(settings.KAFKA_BOOTSTRAP_SERVERS, settings.KAFKA_PREFIX + NEW_USER_REQUESTED)
    contexts = [message.headers["traceparent"].decode().split("-") for message in messages]
    assert sorted(trace for _, trace, _, _ in contexts) == sorted([kim.hex, lee.hex] * 2)
    assert len({span for _, _, span, _ in contexts}) == 4
