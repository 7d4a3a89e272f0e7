"""The rows that registration and verdicts save, field by field, with a stopped clock."""

from dataclasses import replace
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from authsvc.lights import Kind, Status, Verdict
from authsvc.models import EventTransaction, RemovedAccount, SignUp, UnconfirmedSignUp, User
from authsvc.signups import outbox, registration, verdicts
from authsvc.signups.events import Holder
from authsvc.signups.registration import (
    KeyTakenError,
    NewSignUp,
    Registration,
    foresee_users,
    register_new_users,
    register_users,
)
from authsvc.signups.states import read_states
from authsvc.signups.verdicts import ReportedVerdict, apply_verdicts
from runtime.database.bulk_sql import locked

pytestmark = pytest.mark.django_db

NOW = timezone.now()


@pytest.fixture(autouse=True)
def still(monkeypatch, settings) -> None:
    """The clock is stopped at NOW, and pauses have no jitter."""
    settings.RELAY_FIRST_PAUSE = 10
    monkeypatch.setattr(timezone, "now", lambda: NOW)
    monkeypatch.setattr(outbox, "uniform", lambda least, most: least)


def new(user_id: str, email: str | None = None, *, signup_id: UUID | None = None) -> NewSignUp:
    return NewSignUp(
        signup_id=signup_id or uuid4(), user_id=user_id, email=email or f"{user_id.lower()}@example.org",
        user_name=f"Name of {user_id}", role="ROLE_ADMIN", password="the hash",
    )  # fmt: skip


def auth_light(transaction: EventTransaction) -> tuple[str, str | None]:
    light = transaction.state.lights["auth"]
    return light.status, light.reason


def report(transaction_id: UUID, service: str, status: Status = Status.SUCCESS, *held_by: Holder) -> ReportedVerdict:
    reason = "duplicate: userId" if status is Status.FAIL else None
    return ReportedVerdict(transaction_id, Verdict(service, status, reason), held_by)


# --- Registration -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("register", [register_new_users, register_users])
def test_a_new_user_and_its_sign_up_have_all_that_was_submitted(register):
    kim = new("Kim")
    [made] = register([kim])
    user, signup = User.objects.get(), SignUp.objects.get()
    assert (user.user_id, user.user_id_key, user.email) == ("Kim", "kim", "kim@example.org")
    assert (user.user_name, user.role, user.password) == ("Name of Kim", "ROLE_ADMIN", "the hash")
    assert user.owner_signup_id == signup.owner_signup_id == signup.id == kim.signup_id
    assert (signup.user_id, signup.user_id_key, signup.email) == ("Kim", "kim", "kim@example.org")
    assert (signup.user_name, signup.role, signup.password) == ("Name of Kim", "ROLE_ADMIN", "the hash")
    assert (signup.created_at, signup.attempts, signup.next_due_at) == (NOW, 1, NOW + timedelta(seconds=10))
    assert made.is_new
    assert made.record.owner_signup_id == kim.signup_id
    assert made.state == signup.state == read_states([kim.signup_id])[kim.signup_id]
    light = made.state.lights["auth"]
    assert (light.status, light.reason, light.decided_at, made.state.started_at) == (Status.SUCCESS, None, NOW, NOW)
    assert made.state.pending == ["chat", "customer"]


def test_new_users_are_saved_even_if_the_batch_contains_known_users():
    register_users([new("kim")])
    outcomes = register_new_users([new("lee"), new("KIM", "other@example.org"), new("zoe", "kim@example.org")])
    assert [outcome is not None for outcome in outcomes] == [True, False, False]
    assert set(User.objects.values_list("user_id", flat=True)) == {"kim", "lee"}
    assert SignUp.objects.count() == 2


@pytest.mark.parametrize("twice", ["owner_signup_id", "user_id_key", "email"])
def test_a_batch_with_internal_duplicates_is_left_to_the_other_writer(twice):
    first = new("kim")
    second = {
        "owner_signup_id": new("lee", signup_id=first.signup_id),
        "user_id_key": new("KIM", "other@example.org"),
        "email": new("lee", "kim@example.org"),
    }[twice]
    assert register_new_users([first, new("zoe"), second]) == [None, None, None]
    assert not User.objects.exists()


def test_writers_insert_in_the_order_of_the_user_ids(monkeypatch):
    inserted: list[list[str]] = []
    real_insert, real_insert_with = registration.insert, registration.insert_new_with
    monkeypatch.setattr(
        registration, "insert",
        lambda rows, **options: inserted.append([row.user_id for row in rows]) or real_insert(rows, **options),
    )  # fmt: skip
    monkeypatch.setattr(
        registration, "insert_new_with",
        lambda rows, *others, **options: inserted.append([row.user_id for row in rows])
        or real_insert_with(rows, *others, **options),
    )  # fmt: skip
    register_new_users([new("b"), new("C"), new("a")])
    register_users([new("e"), new("F"), new("d")])
    assert inserted == [["a", "b", "C"], ["d", "e", "F"], ["e", "F", "d"]]


def test_the_outcomes_have_the_order_of_the_batch():
    kim, park = new("kim"), new("park")
    register_users([kim, park])
    SignUp.objects.filter(id=park.signup_id).delete()
    batch = [new("lee"), kim, new("kim"), new("lee2", "lee@example.org"), park, new("zoe")]
    outcomes = register_users(batch)
    assert [isinstance(outcome, KeyTakenError) for outcome in outcomes] == [False] * 4 + [True, False]
    made = [outcome for outcome in outcomes if isinstance(outcome, Registration)]
    assert [each.signup.id for each in made] == [each.signup_id for each in batch if each is not park]
    assert [each.is_new for each in made] == [True, False, True, True, True]
    assert [auth_light(each.signup) for each in made] == [
        ("SUCCESS", None), ("SUCCESS", None), ("FAIL", "duplicate: userId"), ("FAIL", "duplicate: email"),
        ("SUCCESS", None),
    ]  # fmt: skip
    assert made[3].record.user_id == "lee"
    assert made[3].signup.owner_signup_id == batch[0].signup_id
    assert SignUp.objects.count() == 5


def test_a_user_made_by_an_administrator_is_in_the_way_by_user_id_and_by_address():
    User.objects.create_user("kim", "kim@example.org", "correct horse 9")
    outcomes = register_users([new("KIM", "other@example.org"), new("other", "kim@example.org")])
    assert [auth_light(each.signup) for each in outcomes] == [
        ("FAIL", "duplicate: userId"), ("FAIL", "duplicate: email"),
    ]  # fmt: skip


def test_a_sign_up_that_is_twice_in_a_batch_or_saved_before_is_joined():
    kim = new("kim")
    for is_new in ([True, False], [False, False]):
        outcomes = register_users([kim, kim])
        assert [each.is_new for each in outcomes] == is_new
        assert [each.state for each in outcomes] == [SignUp.objects.get().state] * 2
    assert User.objects.count() == 1


def test_a_user_with_the_same_address_alone_refuses_the_sign_up():
    register_users([new("kim")])
    [refused] = register_users([new("lee", "kim@example.org")])
    assert auth_light(refused.signup) == ("FAIL", "duplicate: email")


def test_an_existing_account_of_the_same_sign_up_id_takes_the_key():
    kim = new("kim")
    register_users([kim])
    SignUp.objects.all().delete()
    [taken] = register_users([new("lee", signup_id=kim.signup_id)])
    assert isinstance(taken, KeyTakenError)
    assert User.objects.get().user_id == "kim"


@pytest.mark.parametrize("kind", [Kind.CHANGE, Kind.REMOVAL])
def test_the_id_of_a_change_or_a_removal_takes_the_key(kind):
    kim, lee = new("kim"), new("lee")
    register_users([kim])
    EventTransaction.objects.filter(id=kim.signup_id).update(kind=kind)
    User.objects.all().delete()
    assert register_new_users([new("zoe", signup_id=kim.signup_id), lee]) == [None, None]
    refused, saved = register_users([new("zoe", signup_id=kim.signup_id), lee])
    assert isinstance(refused, KeyTakenError)
    assert isinstance(saved, Registration)
    assert [user.user_id for user in User.objects.all()] == ["lee"]


def test_only_the_sign_ups_of_the_batch_are_read():
    batch = [new("kim"), new("lee")]
    with CaptureQueriesContext(connection) as queries:
        register_users(batch)
    [read] = [each["sql"] for each in queries if f'FROM "{SignUp._meta.db_table}"' in each["sql"]]
    assert all(each.signup_id.hex in read for each in batch)


def test_the_repr_of_a_sign_up_has_no_password_hash():
    assert "the hash" not in repr(new("kim"))


def test_a_sign_up_that_nobody_may_repeat_keeps_no_hash_and_only_if_it_is_not_refused():
    once, again, twice = (replace(new(user_id), may_be_repeated=False) for user_id in ("kim", "KIM", "lee"))
    outcomes = register_users([once, again, replace(twice, email="kim@example.org"), new("zoe")])
    assert [auth_light(each.signup)[0] for each in outcomes] == ["SUCCESS", "FAIL", "FAIL", "SUCCESS"]
    assert dict(SignUp.objects.values_list("id", "password")) == {
        once.signup_id: "", outcomes[3].signup.id: "the hash",
    }  # fmt: skip
    assert User.objects.get(user_id="kim").password == "the hash"


@pytest.mark.parametrize("is_repeated", [True, False])
def test_a_new_users_sign_up_keeps_its_hash_only_if_it_may_be_repeated(is_repeated):
    register_new_users([replace(new("kim"), may_be_repeated=is_repeated)])
    assert SignUp.objects.get().password == ("the hash" if is_repeated else "")


def test_a_dry_run_returns_what_would_be_saved_and_saves_nothing():
    register_users([new("kim")])
    batch = [new("lee"), new("KIM", "other@example.org")]
    foreseen = foresee_users(batch)
    assert [auth_light(each.signup)[0] for each in foreseen] == ["SUCCESS", "FAIL"]
    assert set(User.objects.values_list("user_id", flat=True)) == {"kim"}
    assert SignUp.objects.count() == 1
    assert [auth_light(each.signup)[0] for each in register_users(batch)] == ["SUCCESS", "FAIL"]


def test_a_user_added_by_an_administrator_has_a_sign_up_that_is_due_at_once():
    user = User.objects.create_user("Kim", "Kim@example.org", "correct horse 9", user_name="Name", role="ROLE_ADMIN")
    signup = SignUp.objects.get()
    assert signup.id == signup.owner_signup_id == user.owner_signup_id
    assert (signup.user_id, signup.user_id_key, signup.email) == ("Kim", "kim", user.email)
    assert (signup.user_name, signup.role, signup.password) == ("Name", "ROLE_ADMIN", "")
    assert (signup.created_at, signup.attempts, signup.next_due_at) == (NOW, 0, NOW)
    assert (auth_light(signup), signup.state.pending) == (("SUCCESS", None), ["chat", "customer"])
    user.save()
    assert SignUp.objects.count() == 1


def test_without_participants_an_added_user_has_a_complete_sign_up(settings):
    settings.SIGNUP_SERVICES = ["auth"]
    User.objects.create_user("kim", "kim@example.org", "correct horse 9")
    signup = SignUp.objects.get()
    assert (signup.completed_at, signup.next_due_at) == (NOW, None)


def test_users_that_are_loaded_from_a_file_have_their_sign_ups_there():
    user = User(user_id="kim", email="kim@example.org", owner_signup_id=uuid4())
    registration.register_added(User, instance=user, created=True, raw=True)
    registration.register_added(User, instance=user, created=False, raw=False)
    assert not SignUp.objects.exists()


def test_a_writer_that_crosses_another_leaves_the_whole_batch_to_it(monkeypatch):
    calls = []

    def crossed(work, *, otherwise, using):
        calls.append((otherwise, using))
        return otherwise

    monkeypatch.setattr(registration, "unless_crossed", crossed)
    assert register_new_users([new("kim"), new("lee")]) == [None, None]
    assert calls == [([], "default")]


# --- Verdicts ---------------------------------------------------------------------------------------------------


def test_verdicts_of_a_batch_are_applied_each_to_its_own_sign_up():
    kim, lee = new("kim"), new("lee")
    register_users([kim, lee])
    unknown = uuid4()
    states = apply_verdicts(
        [
            report(kim.signup_id, "chat"), report(lee.signup_id, "customer", Status.FAIL),
            report(kim.signup_id, "customer"), report(unknown, "chat"), report(lee.signup_id, "nobody"),
        ]
    )  # fmt: skip
    assert set(states) == {kim.signup_id, lee.signup_id}
    assert states == read_states([kim.signup_id, lee.signup_id, unknown])
    first, second = SignUp.objects.get(id=kim.signup_id), SignUp.objects.get(id=lee.signup_id)
    assert (first.completed_at, first.next_due_at, first.pending_count, first.failed_count) == (NOW, None, 0, 0)
    assert (second.completed_at, second.pending_count, second.failed_count) == (None, 1, 1)
    assert second.state.lights["customer"].decided_at == NOW
    assert set(second.state.lights) == {"auth", "chat", "customer"}


def test_a_verdict_that_changes_nothing_is_not_written(monkeypatch):
    kim, lee = new("kim"), new("lee")
    register_users([kim, lee])
    apply_verdicts([report(kim.signup_id, "chat")])
    written = []
    monkeypatch.setattr(verdicts, "overwrite", lambda rows, **options: written.append([row.user_id for row in rows]))
    apply_verdicts([report(kim.signup_id, "chat", Status.FAIL), report(lee.signup_id, "chat")])
    assert written == [["lee"]]


@pytest.mark.parametrize("known", ["an account", "a removed account", "unknown"])
def test_a_duplicate_of_another_account_decides_nothing_if_auth_knows_that_account(known):
    kim, lee = new("kim"), new("lee")
    register_users([kim])
    if known == "an account":
        register_users([lee])
    elif known == "a removed account":
        RemovedAccount.objects.create(owner_signup_id=lee.signup_id, version=2)
    states = apply_verdicts(
        [report(kim.signup_id, "chat", Status.FAIL, Holder(lee.signup_id)), report(kim.signup_id, "customer")]
    )
    assert states[kim.signup_id].pending == ([] if known == "unknown" else ["chat"])


def test_a_duplicate_decides_unless_auth_knows_every_row_in_the_way():
    kim, lee, zoe = new("kim"), new("lee"), new("zoe")
    register_users([kim, lee])
    rows = [Holder(each.signup_id) for each in (lee, zoe)]
    states = apply_verdicts([report(kim.signup_id, "chat", Status.FAIL, *rows)])
    assert states[kim.signup_id].pending == ["customer"]


@pytest.mark.parametrize("attempts", [-1, 0, 1])
def test_after_the_last_attempt_a_duplicate_of_another_account_decides(settings, attempts):
    kim, lee = new("kim"), new("lee")
    register_users([kim, lee])
    EventTransaction.objects.filter(id=kim.signup_id).update(attempts=settings.RELAY_MAX_ATTEMPTS + attempts)
    states = apply_verdicts([report(kim.signup_id, "chat", Status.FAIL, Holder(lee.signup_id))])
    assert states[kim.signup_id].pending == (["chat", "customer"] if attempts < 0 else ["customer"])


@pytest.mark.parametrize(
    ("asked", "decides"), [(None, True), (Kind.SIGNUP, True), (Kind.CHANGE, False), (Kind.REMOVAL, False)]
)
def test_an_answer_decides_the_kind_that_it_was_asked_about(asked, decides):
    kim = new("kim")
    register_users([kim])
    states = apply_verdicts([replace(report(kim.signup_id, "chat"), kind=asked)])
    assert states[kim.signup_id].pending == (["customer"] if decides else ["chat", "customer"])


def test_rows_are_locked_in_one_order_whatever_the_order_of_the_answers(monkeypatch):
    signups = [new(name) for name in ("kim", "lee", "zoe")]
    register_users(signups)
    asked = []
    monkeypatch.setattr(
        verdicts,
        "locked",
        lambda model, ids, *, using: asked.append((model, ids, using)) or locked(model, ids, using=using),
    )
    apply_verdicts([report(each.signup_id, "chat") for each in (signups[2], signups[0], signups[2])])
    assert asked == [(EventTransaction, [signups[2].signup_id, signups[0].signup_id], "default")]


def test_a_duplicate_of_its_own_account_decides():
    kim, lee = new("kim"), new("lee")
    register_users([kim, lee])
    rows = [Holder(each.signup_id) for each in (kim, lee)]
    states = apply_verdicts([report(kim.signup_id, "chat", Status.FAIL, *rows)])
    assert states[kim.signup_id].pending == ["customer"]


def test_a_removal_loses_its_user_id_when_it_is_complete_and_not_before():
    kim, lee = new("kim"), new("lee")
    register_users([kim, lee])
    EventTransaction.objects.filter(id=kim.signup_id).update(kind=Kind.REMOVAL)
    apply_verdicts([report(kim.signup_id, "chat")])
    assert EventTransaction.objects.get(id=kim.signup_id).user_id == "kim"
    apply_verdicts([report(each.signup_id, service) for each in (kim, lee) for service in ("chat", "customer")])
    removal, signup = EventTransaction.objects.get(id=kim.signup_id), EventTransaction.objects.get(id=lee.signup_id)
    assert (removal.user_id, removal.user_id_key) == ("", "")
    assert (signup.user_id, signup.user_id_key) == ("lee", "lee")


# --- States -----------------------------------------------------------------------------------------------------


def test_states_are_those_of_saved_and_unconfirmed_transactions():
    kim, lee = new("kim"), new("lee")
    register_users([kim, new("others")])
    UnconfirmedSignUp.objects.create(**new("waits too").columns())
    waiting = UnconfirmedSignUp.objects.create(**lee.columns())
    states = read_states([kim.signup_id, lee.signup_id, uuid4()])
    assert states == {kim.signup_id: SignUp.objects.get(id=kim.signup_id).state, lee.signup_id: waiting.state}
    assert states[lee.signup_id].is_unconfirmed


def test_of_a_removed_account_only_the_removal_has_a_state():
    kim, lee, zoe = new("kim"), new("lee"), new("zoe")
    register_users([kim, lee, zoe])
    EventTransaction.objects.filter(id=kim.signup_id).update(user_id_key="")
    EventTransaction.objects.filter(id=lee.signup_id).update(user_id_key="", kind=Kind.REMOVAL)
    EventTransaction.objects.filter(id=zoe.signup_id).update(kind=Kind.REMOVAL)
    assert set(read_states([each.signup_id for each in (kim, lee, zoe)])) == {lee.signup_id, zoe.signup_id}


def test_a_sign_up_that_is_confirmed_between_the_queries_is_found(monkeypatch):
    kim = new("kim")
    UnconfirmedSignUp.objects.create(**kim.columns())
    real_filter = UnconfirmedSignUp.objects.filter

    def confirmed_first(**filters):
        UnconfirmedSignUp.objects.all().delete()
        register_users([kim])
        return real_filter(**filters)

    monkeypatch.setattr(UnconfirmedSignUp.objects, "filter", confirmed_first)
    assert set(read_states([kim.signup_id])) == {kim.signup_id}


def test_states_of_saved_transactions_are_one_query_of_their_own_columns(django_assert_num_queries):
    kim = new("kim")
    register_users([kim])
    with django_assert_num_queries(1) as queries:
        read_states([kim.signup_id])
    assert "password" not in queries[0]["sql"]
