"""The rows that auth stores for sign-ups, on the database of the chosen stack."""

import threading
from datetime import timedelta
from uuid import UUID, uuid4

import psycopg
import pytest
from django.conf import settings
from django.db import connections, transaction
from django.utils import timezone

from authsvc.lights import Status, Verdict
from authsvc.models import SignUp, User
from authsvc.signups.outbox import claim_due
from authsvc.signups.registration import NewSignUp, Registration, register_users
from authsvc.signups.states import read_states
from authsvc.signups.verdicts import ReportedVerdict, apply_verdicts

pytestmark = pytest.mark.django_db(transaction=True)


def new(user_id: str, email: str | None = None, *, signup_id: UUID | None = None) -> NewSignUp:
    return NewSignUp(
        signup_id=signup_id or uuid4(),
        user_id=user_id,
        email=email or f"{user_id.lower()}@example.com",
        user_name=user_id,
        role="ROLE_USER",
        password="not a hash",
    )


def auth_light(signup: SignUp) -> tuple[str, str | None]:
    light = signup.state.lights["auth"]
    return light.status, light.reason


def in_threads(*work) -> None:
    """Run these functions at the same time, each with a separate connection. Raise the first error."""
    errors = []

    def run(each):
        try:
            each()
        except Exception as error:
            errors.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run, args=(each,)) for each in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def test_a_new_user_is_saved_with_its_sign_up():
    [registration] = register_users([new("Kim")])
    signup = SignUp.objects.get()
    assert registration.is_new
    assert signup.is_owner
    assert auth_light(signup) == (Status.SUCCESS, None)
    assert (signup.version, signup.pending_count, signup.failed_count) == (2, 2, 0)
    assert User.objects.get().owner_signup_id == signup.id


@pytest.mark.parametrize(
    ("second", "reason"),
    [
        (new("KIM", "other@example.com"), "duplicate: userId"),
        (new("lee", "kim@example.com"), "duplicate: email"),
        (new("kim", "kim@example.com"), "duplicate: userId"),
    ],
)
@pytest.mark.parametrize("together", [True, False])
def test_a_taken_user_id_or_email_refuses_and_carries_the_stored_record(second, reason, together):
    first = new("kim")
    if together:
        _, refused = register_users([first, second])
    else:
        register_users([first])
        [refused] = register_users([second])
    assert auth_light(refused.signup) == (Status.FAIL, reason)
    assert refused.record.owner_signup_id == first.signup_id
    assert refused.signup.owner_signup_id == first.signup_id
    assert User.objects.count() == 1


def test_if_different_users_have_the_user_id_and_the_email_the_user_id_is_named():
    kim, lee = new("kim"), new("lee")
    register_users([kim, lee])
    [refused] = register_users([new("kim", "lee@example.com")])
    assert auth_light(refused.signup) == (Status.FAIL, "duplicate: userId")
    assert refused.record.owner_signup_id == kim.signup_id


def test_the_same_sign_up_again_is_not_saved_again():
    kim = new("kim")
    [first, repeated] = register_users([kim, kim])
    [later] = register_users([kim])
    assert [first.is_new, repeated.is_new, later.is_new] == [True, False, False]
    assert SignUp.objects.count() == User.objects.count() == 1
    assert auth_light(later.signup) == (Status.SUCCESS, None)


def test_writers_that_cross_on_user_id_and_email_make_each_user_once():
    def batch() -> list[NewSignUp]:
        return [new(f"user-{n}", f"mail-{29 - n}@example.com") for n in range(30)]

    start = threading.Barrier(3)

    def write(signups):
        start.wait(timeout=30)
        register_users(signups)

    batches = [batch() for _ in range(3)]
    in_threads(*[lambda each=each: write(each) for each in batches])
    assert User.objects.count() == 30
    assert SignUp.objects.count() == 90
    assert SignUp.objects.filter(failed_count=0).count() == 30
    owners = set(User.objects.values_list("owner_signup_id", flat=True))
    assert owners == set(SignUp.objects.filter(failed_count=0).values_list("id", flat=True))


def report(signup_id: UUID, service: str, status: Status, reason: str | None = None) -> ReportedVerdict:
    return ReportedVerdict(signup_id, Verdict(service, status, reason))


@pytest.mark.needs("postgresql")
@pytest.mark.parametrize("query", [1, 2])
def test_a_retry_joins_the_sign_up_that_another_instance_commits_between_two_of_its_queries(query: int):
    if connections["default"].vendor != "postgresql":
        pytest.skip("SQLite has one writer at a time")
    first = new("mina")
    queries = 0

    def commit_elsewhere(execute, sql, params, many, context):
        nonlocal queries
        result = execute(sql, params, many, context)
        queries += sql.startswith("SELECT")
        if queries == query and sql.startswith("SELECT"):
            in_threads(lambda: register_users([first]))
        return result

    with connections["default"].execute_wrapper(commit_elsewhere):
        [registration] = register_users([first])
    assert queries >= 2
    assert isinstance(registration, Registration)
    assert registration.signup.id == first.signup_id
    assert auth_light(registration.signup) == ("SUCCESS", None)
    assert (User.objects.count(), SignUp.objects.count()) == (1, 1)


@pytest.mark.needs("postgresql")
def test_a_thread_that_keeps_a_connection_which_the_server_has_ended_gets_another():
    register_users([new("first")])
    kept = connections["default"].connection.info
    with psycopg.connect(kept.dsn, password=kept.password) as other:
        other.execute("SELECT pg_terminate_backend(%s, 5000)", [kept.backend_pid])
    [registration] = register_users([new("second")])
    assert registration.is_new


def test_a_sign_up_that_is_known_is_not_taken_again_after_its_user_was_deleted():
    """The conflicting user is gone, so this user could be saved now, but the sign-up stays refused."""
    register_users([new("kim")])
    refused = new("kim")
    register_users([refused, new("lee")])
    User.objects.all().delete()
    [repeated, other] = register_users([refused, new("zoe")])
    assert not repeated.is_new
    assert repeated.state.lights["auth"].status is Status.FAIL
    assert other.is_new
    assert set(User.objects.values_list("user_id", flat=True)) == {"zoe"}


def test_verdicts_complete_a_sign_up_and_it_is_due_no_more():
    kim = new("kim")
    register_users([kim])
    states = apply_verdicts([report(kim.signup_id, service, Status.SUCCESS) for service in ("chat", "customer")])
    assert states[kim.signup_id].is_complete
    signup = SignUp.objects.get()
    assert (signup.version, signup.pending_count, signup.next_due_at) == (3, 0, None)
    assert signup.completed_at is not None
    assert read_states([kim.signup_id, uuid4()]) == states


def test_a_repeated_or_contrary_verdict_changes_nothing_and_is_still_answered_with_the_state():
    kim = new("kim")
    register_users([kim])
    before = apply_verdicts([report(kim.signup_id, "chat", Status.SUCCESS)])
    assert apply_verdicts([report(kim.signup_id, "chat", Status.FAIL, "duplicate: userId")]) == before


def test_verdicts_that_arrive_at_once_are_all_kept():
    signups = [new(f"user-{n}") for n in range(20)]
    register_users(signups)
    start = threading.Barrier(2)

    def answer(service, order):
        start.wait(timeout=30)
        for signup in order:
            apply_verdicts([report(signup.signup_id, service, Status.SUCCESS)])

    in_threads(lambda: answer("chat", signups), lambda: answer("customer", signups[::-1]))
    assert SignUp.objects.filter(pending_count=0, version=4).count() == 20


def make_due(**filters) -> None:
    SignUp.objects.filter(**filters).update(next_due_at=timezone.now() - timedelta(seconds=1))


def test_a_due_sign_up_is_claimed_once_for_the_services_that_have_not_answered():
    kim, lee = new("kim"), new("lee")
    register_users([kim, lee])
    apply_verdicts([report(kim.signup_id, "chat", Status.SUCCESS)])
    assert claim_due(limit=10) == []
    make_due()
    claimed = {event.transaction.id: event for event in claim_due(limit=10)}
    assert claimed[kim.signup_id].services == ["customer"]
    assert claimed[lee.signup_id].services == ["chat", "customer"]
    assert claimed[kim.signup_id].attempt == 2
    assert claim_due(limit=10) == []


def test_relays_share_the_work():
    register_users([new(f"user-{n}") for n in range(60)])
    make_due()
    start, claimed = threading.Barrier(3), []

    def claim():
        start.wait(timeout=30)
        while events := claim_due(limit=7):
            claimed.extend(event.transaction.id for event in events)

    in_threads(claim, claim, claim)
    assert len(claimed) == len(set(claimed)) == 60


@pytest.mark.needs("postgresql")
def test_a_relay_claims_unlocked_sign_ups_without_waiting_for_locked_ones():
    held, free = new("held"), new("free")
    register_users([held, free])
    make_due()
    claimed = []

    def claim() -> None:
        with connections["default"].cursor() as cursor:
            cursor.execute("SET lock_timeout = '2s'")
        claimed.extend(event.transaction.id for event in claim_due(limit=10))

    with transaction.atomic():
        SignUp.objects.select_for_update().get(id=held.signup_id)
        in_threads(claim)
    assert claimed == [free.signup_id]


def test_the_pauses_double_to_their_limit():
    register_users([new("kim")])
    pauses = []
    for _ in range(5):
        make_due()
        before = timezone.now()
        claim_due(limit=1)
        pauses.append((SignUp.objects.get().next_due_at - before).total_seconds())
    for pause, expected in zip(pauses, [10, 20, 20, 20, 20], strict=True):
        assert expected <= pause <= expected * 1.15


def test_after_its_tries_it_is_stalled_and_a_late_answer_still_turns_its_light():
    kim = new("kim")
    register_users([kim])
    SignUp.objects.update(attempts=settings.RELAY_MAX_ATTEMPTS)
    make_due()
    assert claim_due(limit=10) == []
    assert SignUp.objects.get().stalled_at is not None
    make_due(next_due_at__isnull=False)
    assert claim_due(limit=10) == []
    states = apply_verdicts([report(kim.signup_id, service, Status.SUCCESS) for service in ("chat", "customer")])
    assert states[kim.signup_id].is_complete
    assert SignUp.objects.get().stalled_at is None


def test_the_default_attempts_take_at_least_ten_minutes():
    waits = [
        min(settings.RELAY_FIRST_PAUSE * 2**n, settings.RELAY_MAX_PAUSE) for n in range(settings.RELAY_MAX_ATTEMPTS)
    ]
    assert sum(waits) >= 600


def test_a_sign_up_whose_record_is_gone_is_stalled_not_sent():
    register_users([new("kim")])
    User.objects.all().delete()
    make_due()
    assert claim_due(limit=10) == []
    assert SignUp.objects.get().stalled_at is not None
