"""Unconfirmed sign-ups inside one process: their expiry, their mails, and the settings that require them."""

import asyncio
import json
import logging
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from asgiref.sync import sync_to_async
from asgiref.testing import ApplicationCommunicator
from django.contrib.auth.hashers import make_password
from django.core.checks import run_checks
from django.utils import timezone
from django.utils.translation import override

from authsvc.api.application import SignUpApi
from authsvc.lights import Kind, Status
from authsvc.management.commands.relay_signups import ERASED_AT_ONCE, OutboxRelay
from authsvc.models import EventTransaction, SignUp, UnconfirmedSignUp, User
from authsvc.signups import states
from authsvc.signups.confirmation import (
    ConfirmationLinkError,
    confirm,
    delete_expired,
    read_token,
    row_of,
    save_unconfirmed,
    token_for,
)
from authsvc.signups.confirmation_mails import compose
from authsvc.signups.events import NEW_USER_REQUESTED
from authsvc.signups.registration import KeyTakenError, NewSignUp
from authsvc.signups.states import read_states
from eventbus.topics import ensure_topics
from livesettings.models import ROW, Overrides
from livesettings.values import broken_rules, live, take
from tests.conftest import Person, new_person
from tests.integration.test_signing_up import posted
from tests.signups import save_signup
from tests.users import client_with
from tests.waiting import PATIENCE

pytestmark = [pytest.mark.needs("redis", "broker"), pytest.mark.django_db(transaction=True)]

DAY = timedelta(hours=24)
HOME, STRANGER = "198.51.100.7", "192.0.2.1"


def kept(person: Person, *, age: timedelta = timedelta(), signup_id: UUID | None = None) -> UnconfirmedSignUp:
    new = NewSignUp(
        signup_id=signup_id or uuid4(), user_id=person.user_id, email=person.email, user_name=person.user_name,
        role="ROLE_USER", password="a hash",
    )  # fmt: skip
    save_unconfirmed(new)
    UnconfirmedSignUp.objects.filter(id=new.signup_id).update(created_at=timezone.now() - age)
    return UnconfirmedSignUp.objects.get(id=new.signup_id)


def refused(token: str) -> str:
    with pytest.raises(ConfirmationLinkError) as problem:
        confirm(token)
    return problem.value.reason


# --- The row ----------------------------------------------------------------------------------------------------


def test_an_unconfirmed_sign_up_reserves_no_user_id_or_address(person: Person):
    rows = [kept(person) for _ in range(3)]
    assert {row.user_id for row in rows} == {person.user_id}
    assert not User.objects.exists()
    assert not SignUp.objects.exists()


@pytest.mark.parametrize("kind", [Kind.CHANGE, Kind.REMOVAL])
def test_the_id_of_somebody_elses_change_or_removal_is_refused(person: Person, kind: Kind):
    other = save_signup("other")
    EventTransaction.objects.filter(id=other.id).update(kind=kind)
    User.objects.all().delete()
    with pytest.raises(KeyTakenError):
        kept(person, signup_id=other.id)
    assert not UnconfirmedSignUp.objects.exists()


def test_the_relay_deletes_an_expired_unconfirmed_sign_up(person: Person, settings):
    old, young = kept(person, age=DAY + timedelta(seconds=1)), kept(person, age=DAY - timedelta(minutes=1))
    relay = OutboxRelay(threading.Event())
    relay.erase_expired()
    relay.close()
    assert list(UnconfirmedSignUp.objects.all()) == [young]
    assert refused(token_for(old)) == "expired"
    settings.SIGNUP_CONFIRM_HOURS = 1
    assert delete_expired(ERASED_AT_ONCE) == 1


def test_deletion_goes_by_batches(person: Person):
    for _ in range(3):
        kept(person, age=2 * DAY)
    assert [delete_expired(2), delete_expired(2), delete_expired(2)] == [2, 1, 0]


def test_its_state_is_read_like_any_other_and_continues_as_the_confirmed_one(person: Person):
    row = kept(person)
    [state] = read_states([row.id]).values()
    assert (state.version, state.is_unconfirmed, len(state.pending)) == (1, True, 3)
    confirm(token_for(row))
    [state] = read_states([row.id, uuid4()]).values()
    assert (state.version, state.is_unconfirmed) == (2, False)


def test_a_sign_up_that_is_confirmed_between_two_readings_is_not_lost(person: Person, monkeypatch):
    row = kept(person)

    read = states._read_saved

    def read_and_confirm(ids):
        states = read(ids)
        if UnconfirmedSignUp.objects.exists():
            confirm(token_for(row))
        return states

    monkeypatch.setattr(states, "_read_saved", read_and_confirm)
    assert read_states([row.id])[row.id].version == 2


# --- The token --------------------------------------------------------------------------------------------------


def test_a_token_confirms_its_own_row_and_no_later_one_of_the_same_id(person: Person):
    mine = kept(person, age=timedelta(hours=1))
    token = token_for(mine)
    mine.delete()
    victim = new_person()
    kept(victim, signup_id=UUID(token[:32]))
    assert refused(token) == "expired"
    assert not User.objects.exists()


@pytest.mark.parametrize("age", [DAY, 10 * DAY])
def test_a_token_expires_even_where_the_relay_has_not_deleted_its_row(person: Person, age: timedelta):
    assert refused(token_for(kept(person, age=age))) == "expired"


@pytest.mark.parametrize("token", ["", "x", "x:y", "\ud800", "a" * 10_000, "٣" * 40])
def test_a_token_that_nobody_was_sent_is_unknown(token: str):
    assert refused(token) == "unknown"


def test_a_token_works_once_and_later_uses_are_refused_with_the_reason(person: Person):
    row = kept(person)
    registration = confirm(token_for(row))
    assert registration.is_new
    assert registration.signup.id == row.id
    assert User.objects.get().password == "a hash"
    with pytest.raises(ConfirmationLinkError) as problem:
        row_of(token_for(row))
    assert problem.value.reason == "used"


def test_a_user_id_that_was_taken_before_the_confirmation_is_refused_as_a_duplicate(person: Person):
    first, second = kept(person), kept(person)
    confirm(token_for(first))
    state = confirm(token_for(second)).state
    assert (state.lights["auth"].status, state.lights["auth"].reason) == (Status.FAIL, "duplicate: userId")
    assert User.objects.get().owner_signup_id == first.id


def test_a_token_says_when_its_row_was_made(person: Person):
    row = kept(person)
    assert read_token(token_for(row)) == (row.id, row.created_at)


# --- The mail ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", ["en", "ko"])
def test_no_mail_contains_input_of_the_form(language: str):
    typed = Person("evil.example", "victim@example.org", "WARNING https://evil.example", "pass w0rd")
    known = User.objects.create_user("known", "known@example.org", "pass w0rd 9", user_name="https://evil.example")
    rows = [
        kept(typed),
        kept(Person(typed.user_id, known.email, typed.user_name, "")),
        kept(Person("known", "other@example.org", typed.user_name, "")),
    ]
    subjects = set()
    for row in rows:
        with override(language):
            mail = compose(row.id, address=HOME)
        assert mail
        subjects.add(mail.subject)
        whole = mail.message().as_string() + str(mail.body)
        for text in ("evil.example", "WARNING", "known\n", "Kim"):
            assert text not in whole
        assert mail.to == [row.email]
        assert all(line.startswith("http") == ("://" in line) for line in str(mail.body).splitlines())
    assert len(subjects) == 3


def test_a_confirmed_or_deleted_sign_up_gets_no_mail(person: Person):
    row = kept(person)
    confirm(token_for(row))
    assert compose(row.id, address=HOME) is None
    assert compose(uuid4(), address=HOME) is None


def test_mails_to_one_mailbox_are_limited_per_hour_and_requesting_address(person: Person):
    user, domain = person.email.split("@")
    rows = [kept(replace(person, email=f"{user}+{n}@{domain}")) for n in range(4)]
    assert [compose(row.id, address=STRANGER) is not None for row in rows] == [True, True, True, False]
    # The owner of the mailbox, who is elsewhere, still gets one.
    assert compose(kept(person).id, address=HOME) is not None
    take({"RATE_LIMIT_CONFIRM": 0})
    assert compose(kept(person).id, address=STRANGER) is not None
    take({})


def test_mails_to_one_mailbox_are_limited_per_hour_in_all(person: Person):
    row = kept(person)
    mails = [compose(row.id, address=f"192.0.2.{n % 7}") for n in range(14)]
    assert sum(mail is not None for mail in mails) == 12
    assert compose(row.id, address=HOME) is None
    assert compose(kept(new_person()).id, address=HOME) is not None


def test_without_redis_mails_are_sent_uncounted(person: Person, settings, caplog):
    from authsvc import rate_limits

    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    rate_limits.attempt_limits.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert compose(kept(person).id, address=HOME) is not None
    rate_limits.attempt_limits.cache_clear()


# --- The settings and the admin -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("production", "has_server", "backend", "works"),
    [
        (True, True, "smtp", True),
        (True, False, "smtp", False),
        (True, True, "console", False),
        (False, False, "console", True),
        (False, True, "dummy", False),
    ],
)
def test_confirmation_by_mail_needs_a_mail_server(settings, production, has_server, backend, works):
    settings.PRODUCTION, settings.HAS_MAIL_SERVER = production, has_server
    settings.EMAIL_BACKEND = f"django.core.mail.backends.{backend}.EmailBackend"
    assert [error.id for error in run_checks(tags=["serve"])] == []
    assert bool(broken_rules({"SIGNUP_CONFIRM": "mail"})) is not works
    settings.SIGNUP_CONFIRM = "mail"
    errors = run_checks(tags=["serve"])
    assert [error.id for error in errors] == ([] if works else ["authsvc.E010"])
    assert all("EMAIL_URL" in str(error.hint) for error in errors)


def test_an_administrator_chooses_confirmation_by_name(settings):
    Overrides.objects.get_or_create(pk=ROW)
    client, page = client_with("change_overrides"), f"/admin/livesettings/overrides/{ROW}/change/"
    shown = client.get(page).content.decode()
    assert '<option value="mail">By email</option>' in shown
    assert "Default (None)" in shown
    assert "Select a valid choice" in client.post(page, {"seen": 0, "SIGNUP_CONFIRM": "sms"}).content.decode()
    client.post(page, {"seen": 0, "SIGNUP_CONFIRM": "mail"})
    assert Overrides.read() == {"SIGNUP_CONFIRM": "mail"}
    assert "None → By email" in client.get(page).content.decode()
    settings.EMAIL_BACKEND = "django.core.mail.backends.dummy.EmailBackend"
    assert "needs a mail server" in client.post(page, {"seen": 1, "SIGNUP_CONFIRM": "mail"}).content.decode()
    take({})
    assert live.SIGNUP_CONFIRM == "none"


def test_staff_see_unconfirmed_sign_ups_without_their_passwords(person: Person):
    row = kept(person)
    client, page = client_with("view_unconfirmedsignup"), "/admin/authsvc/unconfirmedsignup/"
    for path in (page, f"{page}?q={person.user_id[:6]}", f"{page}{row.id}/change/"):
        answer = client.get(path)
        assert answer.status_code == 200
        assert person.email in answer.content.decode()
        assert row.password not in answer.content.decode()
    for path in (f"{page}add/", f"{page}{row.id}/delete/"):
        assert client.get(path).status_code == 403
    assert client.get(f"{page}?password__startswith=a").status_code in (302, 400)
    client.post(page, {"action": "delete_selected", "_selected_action": [str(row.id)], "post": "yes"})
    assert UnconfirmedSignUp.objects.filter(id=row.id).exists()


# --- The password, and several instances -------------------------------------------------------------------------


@pytest.fixture
async def instances(settings) -> AsyncIterator[list[SignUpApi]]:
    """Two instances that require confirmation, on the same servers."""
    settings.SIGNUP_CONFIRM, settings.KAFKA_PREFIX = "mail", f"confirmation-{uuid4()}-"
    ensure_topics([NEW_USER_REQUESTED])
    apis = [SignUpApi(), SignUpApi()]
    yield apis
    for api in apis:
        await api.close()


async def confirmed(api: SignUpApi, body: dict[str, str], **headers: str) -> tuple[int, dict[str, str], Any]:
    """The answer of `POST /user/confirmations`: status, headers and document."""
    sent = {"content-type": "application/json"} | headers
    scope = {
        "type": "http", "method": "POST", "path": "/user/confirmations",
        "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in sent.items()],
    }  # fmt: skip
    confirming = ApplicationCommunicator(api, scope)
    await confirming.send_input({"type": "http.request", "body": json.dumps(body).encode(), "more_body": False})
    head = await confirming.receive_output(PATIENCE)
    answer = await confirming.receive_output(PATIENCE)
    await confirming.wait(PATIENCE)
    told = {name.decode().lower(): value.decode() for name, value in head["headers"]}
    return head["status"], told, json.loads(answer["body"])


async def row_with_hash(person: Person) -> UnconfirmedSignUp:
    row = await sync_to_async(kept)(person)
    row.password = make_password(person.password)
    await row.asave()
    return row


async def test_a_wrong_password_confirms_nothing_and_the_link_continues_working(person: Person, instances):
    row = await row_with_hash(replace(person, password="\u1112\u1161\u11ab passw0rd"))
    body = {"token": token_for(row), "userPw": "not it"}
    status, _, problem = await confirmed(instances[0], body, accept_language="ko")
    assert (status, problem["type"]) == (422, "/problems/wrong-password")
    assert problem["errors"] == [{"pointer": "/userPw", "detail": "이 가입에서 정한 비밀번호가 아닙니다."}]
    assert not await User.objects.aexists()
    # The right one may be spelled otherwise.
    status, _, state = await confirmed(instances[0], body | {"userPw": "\ud55c passw0rd"})
    assert (status, state["services"]["auth"]) == (200, {"status": "SUCCESS"})


@pytest.mark.parametrize(
    ("changes", "pointers"),
    [
        ({}, ["/userPw"]),
        ({"userPw": "x" * 129}, ["/userPw"]),
        ({"userPw": "\ud800"}, ["/userPw"]),
        ({"userPw": None, "token": 1, "more": ""}, ["/token", "/userPw", "/more"]),
    ],
)
async def test_each_wrong_field_of_a_confirmation_is_named(instances, person: Person, changes, pointers):
    row = await row_with_hash(person)
    status, _, problem = await confirmed(instances[0], {"token": token_for(row)} | changes)
    assert (status, [error["pointer"] for error in problem["errors"]]) == (422, pointers)


async def test_passwords_tried_at_one_link_are_limited_on_all_instances_together(instances, person: Person, settings):
    settings.RATE_LIMIT_FAILED_LOGIN = 4
    row, other = await row_with_hash(person), await row_with_hash(new_person())
    body = {"token": token_for(row), "userPw": "not it"}
    # All at once, so that none is checked before the others are counted.
    tries = await asyncio.gather(*(confirmed(instances[n % 2], body) for n in range(8)))
    assert sorted(status for status, _, _ in tries) == [422] * 4 + [429] * 4
    status, headers, problem = await confirmed(instances[1], body | {"userPw": person.password})
    assert (status, problem["type"]) == (429, "/problems/limit-password")
    assert 0 < int(headers["retry-after"]) <= 30 * 60
    assert not await User.objects.aexists()
    # Another sign-up's link is not affected.
    assert (await confirmed(instances[0], {"token": token_for(other), "userPw": "not it"}))[0] == 422


async def test_a_confirmation_on_one_instance_wakes_watchers_on_another(instances, person: Person, settings):
    # Long, so that no heartbeat can hide a lost wake-up. Only auth answers here.
    settings.STREAM_HEARTBEAT = 600
    watched, other = instances
    signup_id = uuid4()
    stream = await posted(watched, person.form, signup_id)
    assert (await stream.receive_output(PATIENCE))["status"] == 200
    assert b'"awaiting":"confirmation"' in (await stream.receive_output(PATIENCE))["body"]
    row = await UnconfirmedSignUp.objects.aget(id=signup_id)
    assert (await confirmed(other, {"token": token_for(row), "userPw": person.password}))[0] == 200
    assert b"id: 2\n" in (await stream.receive_output(PATIENCE))["body"]
    await stream.send_input({"type": "http.disconnect"})
    await stream.wait(PATIENCE)
