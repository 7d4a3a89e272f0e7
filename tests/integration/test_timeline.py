"""A sign-up's timeline, on its page and on the terminal: what it knows, and what it says where it can't know."""

import json
from datetime import timedelta
from io import StringIO
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import pytest
from django.contrib.admin.models import CHANGE, LogEntry
from django.core.management import CommandError, call_command
from django.utils import timezone
from django.utils.translation import override

from authsvc.lights import Status, Verdict
from authsvc.models import SignUp, User
from authsvc.operations.timeline import Story, story_of
from authsvc.signups.events import NEW_USER_ANSWERED, NEW_USER_REQUESTED, new_user_requested
from authsvc.signups.registration import NewSignUp, register_users
from authsvc.signups.verdicts import ReportedVerdict, apply_verdicts
from eventbus.messages import Outgoing
from eventbus.models import DeadLetter, DeadLetterAct
from eventbus.producer import EventProducer
from eventbus.topics import ensure_topics
from runtime.tracing import traceparent

pytestmark = pytest.mark.django_db(transaction=True)

on_a_broker = pytest.mark.needs("broker")


@pytest.fixture
def topics(settings, patient):
    settings.KAFKA_PREFIX = f"timeline-{uuid4()}-"
    ensure_topics([NEW_USER_REQUESTED, NEW_USER_ANSWERED])


@pytest.fixture
def no_kafka(settings):
    settings.KAFKA_BOOTSTRAP_SERVERS = ""


def sign_up(user_id: str, *, email: str = "", name: str = "Name") -> SignUp:
    new = NewSignUp(
        signup_id=uuid4(), user_id=user_id, email=email or f"{user_id}@example.com", user_name=name, role="ROLE_USER",
        password="not a hash",
    )  # fmt: skip
    register_users([new])
    return SignUp.objects.get(id=new.signup_id)


def send(message: Outgoing) -> None:
    """As every service does: the key decides the partition."""
    producer = EventProducer()
    producer.send_all([message], timeout=10)
    producer.close(5)


def ask(signup: SignUp, attempt: int = 1, services: list[str] | None = None) -> None:
    record = User.objects.get(owner_signup_id=signup.owner_signup_id)
    send(new_user_requested(record, signup_id=signup.id, attempt=attempt, services=services))


def answer(signup: SignUp, service: str, status: str = "SUCCESS", reason: str | None = None) -> None:
    record = User.objects.get(owner_signup_id=signup.owner_signup_id)
    event = {"signupId": str(signup.id), "userId": record.user_id, "service": service, "status": status}
    value = json.dumps(event | ({"reason": reason} if reason else {})).encode()
    send(Outgoing(NEW_USER_ANSWERED, record.user_id, value))
    apply_verdicts([ReportedVerdict(signup.id, Verdict(service, Status(status), reason))])


def told(signup: SignUp) -> Story:
    return story_of(SignUp.objects.get(id=signup.id))


def explain(*arguments: str) -> str:
    out = StringIO()
    call_command("explain", *arguments, stdout=out)
    return out.getvalue()


@on_a_broker
def test_it_tells_every_try_and_verdict_with_its_place_in_kafka_and_nobody_elses(topics):
    kim, lee = sign_up("kim"), sign_up("lee")
    for signup in (kim, lee):
        ask(signup)
    answer(kim, "customer")
    ask(kim, attempt=2, services=["chat"])
    answer(kim, "chat", "FAIL", "duplicate: email")
    answer(kim, "chat", "FAIL", "duplicate: email")
    answer(lee, "chat")
    story = told(kim)
    assert [(step.what, step.detail) for step in story.steps if step.place] == [
        ("Asked every service", "attempt 1"),
        ("customer answered SUCCESS", ""),
        ("Asked chat", "attempt 2"),
        ("chat answered FAIL", "duplicate: email"),
        ("chat answered FAIL", "duplicate: email; repeated; the light does not change"),
    ]
    assert [step.place.partition("[")[0] for step in story.steps if step.place][:2] == [
        NEW_USER_REQUESTED, NEW_USER_ANSWERED,
    ]  # fmt: skip
    assert len({step.place for step in story.steps if step.place}) == 5
    assert [(step.what, step.detail) for step in story.steps if step.kind == "light"] == [
        ("auth turned green", "version 2"),
        ("customer turned green", "version 3"),
        ("chat turned red", "version 4: duplicate: email"),
    ]
    assert story.steps[0].what == "Sign-up and user saved"
    assert any(step.what == "Complete: every service has answered" for step in story.steps)
    assert [step.at for step in story.steps] == sorted(step.at for step in story.steps)
    assert not story.notes


@on_a_broker
def test_one_whom_auth_refused_is_found_under_the_user_id_of_auths_record(topics):
    sign_up("kim", email="kim@example.com")
    refused = sign_up("other", email="kim@example.com")
    ask(refused)
    answer(refused, "chat", "FAIL", "duplicate: email")
    whats = [step.what for step in told(refused).steps]
    assert whats[0] == "Sign-up saved; auth already had this user"
    assert {"auth turned red", "Asked every service", "chat answered FAIL"} <= set(whats)


@on_a_broker
def test_a_replay_long_after_the_end_is_followed(topics):
    kim = sign_up("kim")
    for service in ("chat", "customer"):
        answer(kim, service)
    ended = timezone.now() - timedelta(days=3)
    SignUp.objects.update(created_at=ended, completed_at=ended)
    assert "Asked chat" not in [step.what for step in told(kim).steps]
    ask(kim, services=["chat"])
    admin = User.objects.create_superuser("root-user", "root@example.com", "correct horse 9")
    LogEntry.objects.log_actions(admin.pk, [kim], CHANGE, "Replayed to chat")
    steps = {step.what: step.detail for step in told(kim).steps}
    assert steps["Asked chat"] == "attempt 1"
    assert steps["Replayed to chat"] == "by root-user, in the admin"
    with override("ko"):
        assert "chat에 재전송함" in [step.what for step in told(kim).steps]


@on_a_broker
def test_it_says_what_kafka_has_no_more(topics, settings):
    kim = sign_up("kim")
    kept = (
        "the embedded broker loses all messages"
        if settings.KAFKA_EMBEDDED
        else "Kafka deletes messages after 168 hours"
    )
    [note] = told(kim).notes
    assert note.startswith("Kafka no longer has any message about it")
    assert kept in note
    ask(kim, attempt=2)
    [note] = told(kim).notes
    assert note.startswith("The first request is not in Kafka")
    apply_verdicts([ReportedVerdict(kim.id, Verdict("chat", Status.SUCCESS))])
    assert told(kim).notes[1].startswith("The answers of chat are not in Kafka")


@on_a_broker
def test_topics_that_were_never_made_are_said(settings):
    settings.KAFKA_PREFIX = f"timeline-{uuid4()}-"
    assert told(sign_up("kim")).notes == [f"Kafka has no topic {NEW_USER_REQUESTED}: nothing was ever sent there."]


@pytest.mark.parametrize(
    ("servers", "words"), [("127.0.0.1:1", "Kafka is not responding"), ("", "Kafka was not queried")]
)
def test_without_kafka_it_tells_what_the_database_knows_and_says_so(settings, servers, words):
    settings.KAFKA_BOOTSTRAP_SERVERS = servers
    kim = sign_up("kim")
    SignUp.objects.update(stalled_at=timezone.now() + timedelta(minutes=10), next_due_at=None, attempts=33)
    apply_verdicts([ReportedVerdict(kim.id, Verdict("chat", Status.SUCCESS))])
    story = told(kim)
    assert len(story.notes) == 1
    assert story.notes[0].startswith(words)
    assert [step.what for step in story.steps] == [
        "Sign-up and user saved", "auth turned green", "chat turned green",
        "Stalled: nothing is sent until someone replays it",
    ]  # fmt: skip
    assert story.steps[-1].detail == "after 33 attempts"
    assert words in explain("kim")


def test_its_dead_letters_and_what_was_done_about_them_are_told(no_kafka):
    kim, lee = sign_up("kim"), sign_up("lee")
    for offset, (signup, key) in enumerate([(kim, b"kim"), (lee, b"lee"), (lee, b"kim")]):
        DeadLetter.objects.create(
            letter_topic="user.newUser.req.chat.dlt", letter_partition=0, letter_offset=offset,
            topic="user.newUser.req", group="chat", partition=0, offset=7, put_aside_at=timezone.now(), key=key,
            message="refused", error="builtins.ValueError", value=json.dumps({"signupId": str(signup.id)}).encode(),
        )  # fmt: skip
    letter = DeadLetter.objects.get(letter_offset=0)
    DeadLetterAct.objects.create(letter=letter, act="replayed", by="root-user", reason="mended")
    about = [(step.what, step.detail, step.letter_id) for step in told(kim).steps if step.letter_id]
    assert about == [
        ("chat could not handle it: dead-lettered", "ValueError: refused (user.newUser.req[0] at 7)", letter.pk),
        (f"Dead letter {letter.pk} replayed", "root-user: mended", letter.pk),
    ]


def test_a_letter_that_cannot_be_read_is_told_by_its_trace(no_kafka):
    kim = sign_up("kim")
    DeadLetter.objects.create(
        letter_topic="user.newUser.req.chat.dlt", letter_partition=0, letter_offset=0, topic="user.newUser.req",
        group="chat", put_aside_at=timezone.now(), key=b"kim", value=b"\xff",
        headers=[["traceparent", traceparent(kim.id)]],
    )  # fmt: skip
    assert [step.kind for step in told(kim).steps if step.letter_id] == ["letter"]


def test_a_record_that_is_gone_is_said(no_kafka):
    kim = sign_up("kim")
    User.objects.all().delete()
    assert told(kim).notes[-1].startswith("Auth no longer has a record of this user")


def test_explain_tells_one_story_by_id_with_the_trace_and_times_with_their_zone(no_kafka):
    kim = sign_up("kim")
    SignUp.objects.update(created_at="2026-03-01T23:30:00.25Z")
    with timezone.override(ZoneInfo("Asia/Seoul")):
        said = explain(str(kim.id))
    assert f"Sign-up      {kim.id}" in said
    assert f"Trace        {kim.id.hex}" in said
    assert "2026-03-02 08:30:00.250 KST  +0.000 s" in said
    assert "auth SUCCESS, chat PENDING, customer PENDING; version 2, tries 1" in said


def test_explain_tells_all_signups_of_a_user_id_the_newest_first(no_kafka):
    ids = [sign_up(user_id).id for user_id in ("kim", "KIM", "Kim")]
    for minutes, each in enumerate(ids):
        SignUp.objects.filter(id=each).update(created_at=timezone.now() + timedelta(minutes=minutes))
    said = explain("kIm")
    places = [said.index(f"Sign-up      {each}") for each in ids]
    assert places == sorted(places, reverse=True)
    few = explain("kim", "--limit", "1")
    assert f"Sign-up      {ids[0]}" not in few
    assert "2 older ones of kim; --limit 3 tells all:" in few
    assert str(ids[0]) in few


def test_explain_writes_nothing_that_drives_a_terminal(no_kafka):
    sign_up("kim", name="\x1b[2J boo")
    said = explain("kim")
    assert "\\x1b[2J boo" in said
    assert "\x1b" not in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nobody"], "There is no sign-up with the ID or user ID nobody"),
        ([str(UUID(int=1))], "There is no sign-up with the ID"),
        (["root-user"], "Auth has the user root-user, who joined at"),
        (["kim", "--limit", "0"], "1 or more"),
    ],
)
def test_explain_says_in_words_where_there_is_none(no_kafka, arguments, words):
    User.objects.create_superuser("root-user", "root@example.com", "correct horse 9")
    SignUp.objects.all().delete()
    sign_up("kim")
    with pytest.raises(CommandError, match=words):
        explain(*arguments)
