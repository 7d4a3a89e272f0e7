"""The times at which a transaction's event is due, at their exact bounds, with a stopped clock."""

from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from django.utils import timezone

from authsvc.lights import Kind, Status, Verdict
from authsvc.models import EventTransaction, SignUp, User
from authsvc.signups import outbox
from authsvc.signups.outbox import (
    EVENT_FIELDS,
    JITTER,
    ask_again,
    ask_also,
    claim_due,
    count_incomplete,
    give_back_attempts,
    longest_pause,
    records_of,
    wait_for_answers_after,
)
from authsvc.signups.registration import NewSignUp, register_users
from authsvc.signups.verdicts import ReportedVerdict, apply_verdicts
from runtime.database import transactions

pytestmark = pytest.mark.django_db

NOW = timezone.now()
MOMENT = timedelta(microseconds=1)


@pytest.fixture(autouse=True)
def still(monkeypatch, settings) -> None:
    """The clock is stopped at NOW, and pauses have no jitter."""
    settings.RELAY_FIRST_PAUSE, settings.RELAY_MAX_PAUSE, settings.RELAY_MAX_ATTEMPTS = 10, 40, 5
    monkeypatch.setattr(timezone, "now", lambda: NOW)
    monkeypatch.setattr(outbox, "uniform", lambda least, most: least)


def begin(*names: str, answered: tuple[str, ...] = (), **columns: object) -> list[UUID]:
    """Save sign-ups with these answers, and then set these values in their rows."""
    new = [
        NewSignUp(
            signup_id=uuid4(), user_id=name, email=f"{name}@example.org", user_name=name, role="ROLE_USER",
            password="not a hash",
        )
        for name in names
    ]  # fmt: skip
    register_users(new)
    ids = [each.signup_id for each in new]
    apply_verdicts([ReportedVerdict(each, Verdict(name, Status.SUCCESS)) for each in ids for name in answered])
    if columns:
        EventTransaction.objects.filter(id__in=ids).update(**columns)
    return ids


def row(transaction_id: UUID) -> EventTransaction:
    return EventTransaction.objects.get(id=transaction_id)


def claimed(limit: int = 10) -> list[UUID]:
    return [event.transaction.id for event in claim_due(limit=limit)]


@pytest.mark.parametrize(("attempt", "seconds"), [(1, 10), (2, 20), (3, 40), (4, 40)])
@pytest.mark.parametrize("factor", [1, JITTER])
def test_a_pause_doubles_with_each_attempt_and_has_a_tenth_of_jitter(attempt, seconds, factor, monkeypatch):
    between = []
    monkeypatch.setattr(outbox, "uniform", lambda *bounds: between.append(bounds) or factor)
    assert wait_for_answers_after(attempt) == timedelta(seconds=seconds * factor)
    assert between == [(1, 1.1)]


def test_no_pause_is_longer_than_the_longest_with_its_jitter():
    assert longest_pause() == timedelta(seconds=44)


def test_an_event_is_due_at_its_time_and_not_before():
    [at], [after] = begin("at", next_due_at=NOW), begin("after", next_due_at=NOW + MOMENT)
    assert claimed() == [at]
    assert row(after).attempts == 1


def test_an_event_due_later_than_any_pause_allows_is_due_now():
    begin("at", next_due_at=NOW + longest_pause())
    [beyond] = begin("beyond", next_due_at=NOW + longest_pause() + MOMENT)
    assert claimed() == [beyond]


def test_the_events_due_longest_are_claimed_first_up_to_the_limit():
    [far] = begin("far", next_due_at=NOW + timedelta(days=1))
    [farther] = begin("farther", next_due_at=NOW + timedelta(days=2))
    [second] = begin("second", next_due_at=NOW - MOMENT)
    [first] = begin("first", next_due_at=NOW - 2 * MOMENT)
    assert claimed(1) == [first]
    assert claimed(2) == [second, far]
    assert claimed(2) == [farther]
    assert claimed(2) == []


def test_a_claimed_event_is_postponed_by_the_pause_after_its_attempt():
    [kim] = begin("kim", answered=("chat",), next_due_at=NOW, attempts=2)
    [event] = claim_due(limit=10)
    assert (event.transaction.id, event.record.user_id, event.attempt) == (kim, "kim", 3)
    assert event.services == ["customer"]
    saved = row(kim)
    assert (saved.attempts, saved.next_due_at, saved.stalled_at) == (3, NOW + timedelta(seconds=40), None)


def test_after_the_last_attempt_it_is_stalled_and_the_next_one_is_claimed():
    [used_up] = begin("used-up", next_due_at=NOW - MOMENT, attempts=5)
    [last] = begin("last", next_due_at=NOW, attempts=4)
    assert claimed() == [last]
    assert (row(last).attempts, row(last).stalled_at) == (5, None)
    saved = row(used_up)
    assert (saved.attempts, saved.next_due_at, saved.stalled_at) == (5, None, NOW)


def test_without_its_user_only_a_removal_is_claimed():
    [kim] = begin("kim", next_due_at=NOW - MOMENT)
    [removal] = begin("lee", next_due_at=NOW)
    EventTransaction.objects.filter(id=removal).update(kind=Kind.REMOVAL)
    User.objects.all().delete()
    [event] = claim_due(limit=10)
    assert (event.transaction.id, event.record) == (removal, None)
    assert row(kim).stalled_at == NOW


def test_the_given_transactions_get_back_their_last_attempt_but_never_the_first():
    [first] = begin("first", attempts=1)
    [second] = begin("second", attempts=2, next_due_at=NOW)
    [other] = begin("other", attempts=2)
    give_back_attempts([first, second])
    assert [row(each).attempts for each in (first, second, other)] == [1, 1, 2]
    assert row(second).next_due_at == NOW


def test_only_the_incomplete_of_the_given_transactions_become_due_again():
    [one] = begin("one", answered=("chat",), attempts=5, stalled_at=NOW, next_due_at=None)
    [complete] = begin("complete", answered=("chat", "customer"), attempts=5)
    [other] = begin("other", attempts=5, stalled_at=NOW, next_due_at=None)
    ask_again([one, complete])
    saved = row(one)
    assert (saved.attempts, saved.next_due_at, saved.stalled_at) == (1, NOW + timedelta(seconds=10), None)
    assert (row(complete).attempts, row(complete).next_due_at) == (5, None)
    assert (row(other).attempts, row(other).next_due_at, row(other).stalled_at) == (5, None, NOW)


def test_a_service_that_was_added_gets_a_light_in_the_sign_ups_that_lack_it(settings):
    settings.SIGNUP_SERVICES = ["auth", "chat"]
    lacking = begin("b", "a", answered=("chat",), attempts=5, stalled_at=NOW)
    [other] = begin("other", answered=("chat",))
    settings.SIGNUP_SERVICES = ["auth", "chat", "customer"]
    [with_it] = begin("with-it", attempts=5)
    states = ask_also([*lacking, with_it], service="customer")
    assert [state.transaction_id for state in states] == sorted(lacking)
    for state in states:
        saved = row(state.transaction_id)
        assert saved.state == state
        assert (state.pending, state.is_complete, saved.pending_count) == (["customer"], False, 1)
        assert (saved.attempts, saved.next_due_at, saved.stalled_at) == (1, NOW + timedelta(seconds=10), None)
        assert saved.completed_at is None
    assert "customer" not in row(other).state.lights
    assert row(with_it).attempts == 5


def test_a_removed_accounts_sign_up_gets_no_light(settings):
    settings.SIGNUP_SERVICES = ["auth", "chat"]
    [kim] = begin("kim", answered=("chat",), user_id="", user_id_key="")
    settings.SIGNUP_SERVICES = ["auth", "chat", "customer"]
    assert ask_also([kim], service="customer") == []
    assert row(kim).state.is_complete


def test_incomplete_transactions_are_counted_as_waiting_due_or_stalled():
    begin("due", next_due_at=NOW)
    begin("due-too", next_due_at=NOW - MOMENT)
    begin("waiting", next_due_at=NOW + MOMENT)
    begin("s1", "s2", "s3", next_due_at=None, stalled_at=NOW)
    begin("complete", answered=("chat", "customer"))
    assert count_incomplete() == {"waiting": 1, "due": 2, "stalled": 3}


def test_records_are_read_by_owner_with_only_the_fields_of_an_event(django_assert_num_queries):
    [kim], _ = begin("kim"), begin("lee")
    with django_assert_num_queries(1):
        records = records_of([kim, uuid4()])
        assert {owner: record.email for owner, record in records.items()} == {kim: "kim@example.org"}
    loaded = {field.attname for field in User._meta.concrete_fields} - records[kim].get_deferred_fields()
    assert loaded == {"id", *EVENT_FIELDS}


@pytest.mark.parametrize(
    "call",
    [
        lambda ids: claim_due(limit=1), lambda ids: give_back_attempts(ids), lambda ids: ask_again(ids),
        lambda ids: ask_also(ids, service="new"),
    ],
    ids=["claim_due", "give_back_attempts", "ask_again", "ask_also"],
)  # fmt: skip
def test_each_change_is_one_transaction_on_the_database_of_auth(call, monkeypatch):
    ids = begin("kim", next_due_at=NOW, attempts=2)
    begun = []
    monkeypatch.setattr(transactions, "leave_ended_connection", begun.append)
    call(ids)
    assert begun == ["default"]
    assert SignUp.objects.count() == 1
