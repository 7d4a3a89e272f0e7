"""A sign-up's timeline, on its page and in the terminal: its steps, and its notes about missing information."""

import json
from datetime import timedelta
from io import StringIO
from typing import Any
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import pytest
from django.contrib.admin.models import CHANGE, LogEntry
from django.core.management import CommandError, call_command
from django.utils import timezone
from django.utils.translation import override

from authsvc.lights import Kind, Status, Verdict
from authsvc.models import EventTransaction, RemovedAccount, SignUp, User
from authsvc.operations.timeline import Timeline, timeline_of
from authsvc.signups import publisher
from authsvc.signups.changes import change_account, remove_account
from authsvc.signups.events import (
    ANSWER_TOPICS,
    NEW_USER_ANSWERED,
    NEW_USER_REQUESTED,
    REQUEST_TOPICS,
    Holder,
    new_user_requested,
    requested,
)
from authsvc.signups.verdicts import ReportedVerdict, apply_verdicts
from eventbus.messages import Outgoing, cloud_event_headers
from eventbus.models import DeadLetter, DeadLetterAction
from eventbus.producer import EventProducer
from runtime.tracing import traceparent
from tests.broker import make_topics
from tests.signups import save_signup

pytestmark = pytest.mark.django_db(transaction=True)

on_a_broker = pytest.mark.needs("broker")


@pytest.fixture
def topics(settings, patient):
    settings.KAFKA_PREFIX = f"timeline-{uuid4()}-"
    make_topics([*REQUEST_TOPICS.values(), *ANSWER_TOPICS.values()])


@pytest.fixture
def no_kafka(settings):
    settings.KAFKA_BOOTSTRAP_SERVERS = ""


def send(message: Outgoing) -> None:
    """Publish like every service: the key determines the partition."""
    producer = EventProducer()
    producer.send_all([message], timeout=10)
    producer.close(5)


def ask(signup: SignUp, attempt: int = 1, services: list[str] | None = None) -> None:
    record = User.objects.get(owner_signup_id=signup.owner_signup_id)
    send(new_user_requested(record, signup_id=signup.id, attempt=attempt, services=services))


def send_answer(topic: str, event: dict[str, Any]) -> None:
    value = json.dumps(event | {"occurredAt": timezone.now().isoformat()}).encode()
    send(Outgoing(topic, event["userId"], value, cloud_event_headers(type=topic, source=f"/{event['service']}")))


def answer(signup: SignUp, service: str, status: str = "SUCCESS", reason: str | None = None) -> None:
    record = User.objects.get(owner_signup_id=signup.owner_signup_id)
    event = {"signupId": str(signup.id), "userId": record.user_id, "service": service, "status": status}
    send_answer(NEW_USER_ANSWERED, event | ({"reason": reason} if reason else {}))
    apply_verdicts([ReportedVerdict(signup.id, Verdict(service, Status(status), reason))])


def change(known_as: str, **values: object) -> EventTransaction:
    user = User.objects.get(user_id=known_as)
    for name, value in values.items():
        setattr(user, name, value)
    row = change_account(user)
    assert row is not None
    publisher.close()
    return row


def remove(user_id: str) -> EventTransaction:
    row = remove_account(User.objects.get(user_id=user_id))
    publisher.close()
    return row


def answer_change(row: EventTransaction, service: str, *, status: str = "SUCCESS", held_by: list[Holder] = []) -> None:  # noqa: B006
    """Answer a change or a removal like a participant."""
    rows = [{"ownerSignupId": str(each.owner_signup_id), "version": each.version} for each in held_by]
    event = {
        "changeId": str(row.id), "userId": row.user_id, "service": service, "status": status,
        **({"reason": "duplicate: userId", "heldBy": rows} if held_by else {}),
    }  # fmt: skip
    send_answer(ANSWER_TOPICS[Kind(row.kind)], event)
    apply_verdicts([ReportedVerdict(row.id, Verdict(service, Status(status), event.get("reason")), held_by)])


def told(row: EventTransaction) -> Timeline:
    return timeline_of(EventTransaction.objects.get(id=row.id))


def sent(row: EventTransaction) -> list[tuple[str, str]]:
    """The words and details of the steps that are messages."""
    return [(step.what, step.detail) for step in told(row).steps if step.place]


def explain(*arguments: str) -> str:
    out = StringIO()
    call_command("explain", *arguments, stdout=out)
    return out.getvalue()


@on_a_broker
def test_a_timeline_has_every_attempt_and_verdict_of_its_sign_up_with_their_places_in_kafka(topics):
    kim, lee = save_signup("kim"), save_signup("lee")
    for signup in (kim, lee):
        ask(signup)
    answer(kim, "customer")
    ask(kim, attempt=2, services=["chat"])
    answer(kim, "chat", "FAIL", "duplicate: email")
    answer(kim, "chat", "FAIL", "duplicate: email")
    answer(lee, "chat")
    timeline = told(kim)
    assert [(step.what, step.detail) for step in timeline.steps if step.place] == [
        ("Asked every service", "attempt 1"),
        ("customer answered SUCCESS", ""),
        ("Asked chat", "attempt 2"),
        ("chat answered FAIL", "duplicate: email"),
        ("chat answered FAIL", "duplicate: email; repeated; the light does not change"),
    ]
    assert [step.place.partition("[")[0] for step in timeline.steps if step.place][:2] == [
        NEW_USER_REQUESTED, NEW_USER_ANSWERED,
    ]  # fmt: skip
    assert len({step.place for step in timeline.steps if step.place}) == 5
    assert [(step.what, step.detail) for step in timeline.steps if step.kind == "light"] == [
        ("auth turned green", "version 2"),
        ("customer turned green", "version 3"),
        ("chat turned red", "version 4: duplicate: email"),
    ]
    assert timeline.steps[0].what == "Sign-up and user saved"
    assert any(step.what == "Complete: every service has answered" for step in timeline.steps)
    assert [step.at for step in timeline.steps] == sorted(step.at for step in timeline.steps)
    assert not timeline.notes


@on_a_broker
def test_messages_of_a_refused_sign_up_are_found_under_the_user_id_of_auths_record(topics):
    save_signup("kim", email="kim@example.com")
    refused = save_signup("other", email="kim@example.com")
    ask(refused)
    answer(refused, "chat", "FAIL", "duplicate: email")
    whats = [step.what for step in told(refused).steps]
    assert whats[0] == "Sign-up saved; auth already had this user"
    assert {"auth turned red", "Asked every service", "chat answered FAIL"} <= set(whats)


@on_a_broker
def test_a_replay_long_after_completion_is_shown(topics):
    kim = save_signup("kim")
    for service in ("chat", "customer"):
        answer(kim, service)
    ended = timezone.now() - timedelta(days=3)
    SignUp.objects.update(created_at=ended, completed_at=ended)
    assert "Asked chat" not in [step.what for step in told(kim).steps]
    ask(kim, services=["chat"])
    admin = User.objects.create_superuser("root-user", "root@example.com", "correct horse 9")
    LogEntry.objects.log_actions(admin.pk, [EventTransaction.objects.get(id=kim.id)], CHANGE, "Replayed to chat")
    steps = {step.what: step.detail for step in told(kim).steps}
    assert steps["Asked chat"] == "attempt 1"
    assert steps["Replayed to chat"] == "by root-user, in the admin"
    with override("ko"):
        assert "chat에 재전송함" in [step.what for step in told(kim).steps]


@on_a_broker
def test_messages_that_kafka_has_deleted_are_noted(topics, settings):
    kim = save_signup("kim")
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
def test_topics_that_were_never_made_are_reported(settings):
    settings.KAFKA_PREFIX = f"timeline-{uuid4()}-"
    assert told(save_signup("kim")).notes == [f"Kafka has no topic {NEW_USER_REQUESTED}: nothing was ever sent there."]


@pytest.mark.parametrize(
    ("servers", "words"), [("127.0.0.1:1", "Kafka is not responding"), ("", "Kafka was not queried")]
)
def test_without_kafka_a_timeline_has_only_the_databases_steps_and_a_notice(settings, servers, words):
    settings.KAFKA_BOOTSTRAP_SERVERS = servers
    kim = save_signup("kim")
    SignUp.objects.update(stalled_at=timezone.now() + timedelta(minutes=10), next_due_at=None, attempts=33)
    apply_verdicts([ReportedVerdict(kim.id, Verdict("chat", Status.SUCCESS))])
    timeline = told(kim)
    assert len(timeline.notes) == 1
    assert timeline.notes[0].startswith(words)
    assert [step.what for step in timeline.steps] == [
        "Sign-up and user saved", "auth turned green", "chat turned green",
        "Stalled: nothing is sent until someone replays it",
    ]  # fmt: skip
    assert timeline.steps[-1].detail == "after 33 attempts"
    assert words in explain("kim")


def test_dead_letters_and_the_actions_on_them_are_shown(no_kafka):
    kim, lee = save_signup("kim"), save_signup("lee")
    for offset, (signup, key) in enumerate([(kim, b"kim"), (lee, b"lee"), (lee, b"kim")]):
        DeadLetter.objects.create(
            letter_topic="user.newUser.req.chat.dlt", letter_partition=0, letter_offset=offset,
            topic="user.newUser.req", group="chat", partition=0, offset=7, put_aside_at=timezone.now(), key=key,
            message="refused", error="builtins.ValueError", value=json.dumps({"signupId": str(signup.id)}).encode(),
        )  # fmt: skip
    letter = DeadLetter.objects.get(letter_offset=0)
    DeadLetterAction.objects.create(letter=letter, action="replayed", by="root-user", reason="mended")
    about = [(step.what, step.detail, step.letter_id) for step in told(kim).steps if step.letter_id]
    assert about == [
        ("chat could not handle it: dead-lettered", "ValueError: refused (user.newUser.req[0] at 7)", letter.pk),
        (f"Dead letter {letter.pk} replayed", "root-user: mended", letter.pk),
    ]


def test_an_unreadable_dead_letter_is_matched_by_its_trace(no_kafka):
    kim = save_signup("kim")
    DeadLetter.objects.create(
        letter_topic="user.newUser.req.chat.dlt", letter_partition=0, letter_offset=0, topic="user.newUser.req",
        group="chat", put_aside_at=timezone.now(), key=b"kim", value=b"\xff",
        headers=[["traceparent", traceparent(kim.id)]],
    )  # fmt: skip
    assert [step.kind for step in told(kim).steps if step.letter_id] == ["letter"]


def test_a_missing_record_is_reported(no_kafka):
    kim = save_signup("kim")
    User.objects.all().delete()
    assert told(kim).notes[-1].startswith("Auth no longer has a record of this user")


def test_explain_prints_one_timeline_by_id_with_the_trace_and_times_with_their_zone(no_kafka):
    kim = save_signup("kim")
    SignUp.objects.update(created_at="2026-03-01T23:30:00.25Z")
    with timezone.override(ZoneInfo("Asia/Seoul")):
        said = explain(str(kim.id))
    assert f"Sign-up      {kim.id}" in said
    assert f"Trace        {kim.id.hex}" in said
    assert "2026-03-02 08:30:00.250 KST  +0.000 s" in said
    assert "auth SUCCESS, chat PENDING, customer PENDING; version 2, attempts 1" in said


def test_explain_prints_all_sign_ups_of_a_user_id_the_newest_first(no_kafka):
    ids = [save_signup(user_id).id for user_id in ("kim", "KIM", "Kim")]
    for minutes, each in enumerate(ids):
        SignUp.objects.filter(id=each).update(created_at=timezone.now() + timedelta(minutes=minutes))
    said = explain("kIm")
    places = [said.index(f"Sign-up      {each}") for each in ids]
    assert places == sorted(places, reverse=True)
    few = explain("kim", "--limit", "1")
    assert f"Sign-up      {ids[0]}" not in few
    assert "2 older ones of kim; --limit 3 shows all:" in few
    assert str(ids[0]) in few


def test_explain_escapes_control_characters(no_kafka):
    save_signup("kim", name="\x1b[2J boo")
    said = explain("kim")
    assert "\\x1b[2J boo" in said
    assert "\x1b" not in said


@on_a_broker
def test_a_change_shows_its_fields_its_version_and_its_own_messages(topics):
    signup = save_signup("kim")
    ask(signup)
    row = change("kim", email="new@example.com", role="ROLE_ADMIN")
    answer_change(row, "chat")
    answer_change(row, "customer")
    timeline = told(row)
    first = timeline.steps[0]
    assert (first.what, first.detail) == ("Change saved", "version 2 of the account; changed: email address, role")
    assert sent(row) == [
        ("Asked every service", "attempt 1; version 2 of the account"),
        ("chat answered SUCCESS", ""),
        ("customer answered SUCCESS", ""),
    ]
    assert {step.place.partition("[")[0] for step in timeline.steps if step.place} == {
        REQUEST_TOPICS[Kind.CHANGE], ANSWER_TOPICS[Kind.CHANGE],
    }  # fmt: skip
    assert not timeline.notes
    assert sent(signup) == [("Asked every service", "attempt 1")]


@on_a_broker
def test_the_messages_of_a_change_that_was_sent_again_under_a_later_user_id_are_found(topics):
    save_signup("kim")
    row = change("kim", user_name="Other")
    change("kim", user_id="lee")
    renamed = change("lee", user_id="park")
    for attempt, user_id in ((2, "lee"), (3, "park")):
        record = User.objects.get()
        record.user_id = user_id
        send(requested(row, record, attempt=attempt))
    assert sorted(detail for _, detail in sent(row)) == [
        "attempt 1; version 2 of the account", "attempt 2; version 4 of the account",
        "attempt 3; version 4 of the account",
    ]  # fmt: skip
    assert told(row).notes == [
        "The account has been changed again since: a replay sends its current record, version 4.",
    ]
    assert told(renamed).notes == []


@on_a_broker
def test_a_duplicate_that_decides_nothing_is_reported_with_the_account_in_the_way(topics):
    former = save_signup("kim")
    change("kim", user_id="elsewhere")
    save_signup("lee")
    row = change("lee", user_id="kim")
    in_the_way = Holder(owner_signup_id=former.id, version=1)
    answer_change(row, "chat", status="FAIL", held_by=[in_the_way])
    answer_change(row, "chat")
    answer_change(row, "chat")
    assert sent(row)[1:] == [
        (
            "chat answered FAIL",
            f"duplicate: userId; in the way: version 1 of the account of sign-up {former.id}; "
            "decides nothing, because that account has been changed or removed since",
        ),
        ("chat answered SUCCESS", ""),
        ("chat answered SUCCESS", "repeated; the light does not change"),
    ]


@on_a_broker
@pytest.mark.parametrize("is_complete", [False, True], ids=["waiting", "complete and so without a user ID"])
def test_a_removal_and_what_it_ended_still_show_their_messages(topics, is_complete):
    signup = save_signup("kim")
    ask(signup)
    answer(signup, "chat")
    row = remove("kim")
    for service in ("chat", "customer") if is_complete else ("chat",):
        answer_change(row, service)
    assert EventTransaction.objects.get(id=row.id).user_id == ("" if is_complete else "kim")
    timeline = told(row)
    first = timeline.steps[0]
    assert (first.what, first.detail) == (
        "Account removed from auth",
        "version 2 of the account",
    )
    assert sent(row)[:2] == [
        ("Asked every service", "attempt 1; version 2 of the account"), ("chat answered SUCCESS", ""),
    ]  # fmt: skip
    assert not timeline.notes
    assert sent(signup) == [("Asked every service", "attempt 1"), ("chat answered SUCCESS", "")]
    assert ("customer turned red", "version 4: removed") in [(step.what, step.detail) for step in told(signup).steps]
    [note] = told(signup).notes
    assert note.startswith("The account was removed at ")
    assert note.endswith("its personal data was erased, and nothing can be sent again.")


@on_a_broker
def test_the_administrator_who_made_a_change_is_named(topics):
    save_signup("kim")
    row = change("kim", is_active=False)
    admin = User.objects.create_superuser("root-user", "root@example.com", "correct horse 9")
    LogEntry.objects.log_actions(admin.pk, [row], CHANGE, [{"changed": {"fields": ["active"]}}])
    steps = {step.what: step.detail for step in told(row).steps}
    assert steps["Change saved"] == "version 2 of the account; changed: active"
    assert steps["Changed active."] == "by root-user, in the admin"


@on_a_broker
def test_explain_prints_the_sign_up_and_every_change_even_those_under_a_former_user_id(topics):
    signup, other = save_signup("kim"), save_signup("other", email="kim@example.org")
    renamed = change("kim", user_id="lee")
    deactivated = change("lee", is_active=False)
    said = explain("lee")
    ids = [line.split()[-1] for line in said.splitlines() if line.startswith(("Sign-up ", "Change "))]
    assert ids == [str(each.id) for each in (deactivated, renamed, signup)]
    assert f"Change       {deactivated.id}" in said
    assert f"created by sign-up {signup.id}" in said
    assert str(other.id) not in said
    assert f"Sign-up      {signup.id}" in explain("kim")


@on_a_broker
def test_explain_shows_the_remaining_records_of_a_removed_account(topics):
    signup = save_signup("kim")
    change("kim", user_name="Secret Name")
    row = remove("kim")
    assert f"Removal      {row.id}" in explain("kim")
    for service in ("chat", "customer"):
        apply_verdicts([ReportedVerdict(row.id, Verdict(service, Status.SUCCESS))])
    with pytest.raises(CommandError, match="records of a removed account no longer have its user ID"):
        explain("kim")
    said = explain(str(signup.id))
    assert [line.split()[0] for line in said.splitlines() if line.startswith(("Sign-up ", "Change ", "Removal "))] == [
        "Removal", "Change", "Sign-up",
    ]  # fmt: skip
    assert "kim" not in said
    assert "Secret" not in said
    assert said.count("User ID      erased") == 3
    EventTransaction.objects.all().delete()
    removed = RemovedAccount.objects.get()
    with pytest.raises(CommandError, match=f"The account of sign-up {signup.id} was removed at .* version 3"):
        explain(str(removed.owner_signup_id))


@on_a_broker
def test_a_new_person_with_the_user_id_of_a_removed_account_is_explained_alone(topics):
    former = save_signup("kim")
    remove("kim")
    EventTransaction.objects.update(user_id="", user_id_key="")
    new = save_signup("kim")
    said = explain("kim")
    assert f"Sign-up      {new.id}" in said
    assert str(former.id) not in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nobody"], "There is no sign-up, change or removal with the ID or user ID nobody"),
        ([str(UUID(int=1))], "There is no sign-up, change or removal with the ID"),
        (["root-user"], "Auth has the user root-user, who joined at"),
        (["kim", "--limit", "0"], "1 or more"),
    ],
)
def test_explain_reports_an_unknown_user_id(no_kafka, arguments, words):
    User.objects.create_superuser("root-user", "root@example.com", "correct horse 9")
    SignUp.objects.all().delete()
    save_signup("kim")
    with pytest.raises(CommandError, match=words):
        explain(*arguments)


@on_a_broker
def test_the_pages_of_a_change_and_of_an_erased_removal_have_descriptive_titles(topics, client):
    signup = save_signup("kim")
    changed = change("kim", user_name="Other")
    removal = remove("kim")
    for service in ("chat", "customer"):
        apply_verdicts([ReportedVerdict(removal.id, Verdict(service, Status.SUCCESS))])
    client.force_login(User.objects.create_superuser("root-user", "root@example.com", "correct horse 9"))
    for row, title, first in (
        (changed, "Change of an erased account", "Change saved"),
        (removal, "Removal of an erased account", "Account removed from auth"),
    ):
        page = client.get(f"/admin/authsvc/eventtransaction/{row.id}/change/").content.decode()
        assert f"<h1>{title}</h1>" in page
        assert first in page
        assert "Of the account of sign-up <a" in page
        assert str(signup.id) in page
    listed = client.get("/admin/authsvc/eventtransaction/?kind__exact=removal").content.decode()
    assert f"/admin/authsvc/eventtransaction/{removal.id}/change/" in listed
    assert ">erased</a>" in listed
