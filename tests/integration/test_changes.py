"""Changes and removals on auth's side: one event transaction each, through the outbox, the verdicts and the API."""

import json
from collections.abc import Iterator
from uuid import UUID, uuid4

import msgspec
import pytest
from channels.db import database_sync_to_async
from django.contrib.admin.models import LogEntry
from django.contrib.contenttypes.models import ContentType
from django.test import Client
from django.utils import timezone

from authsvc import tickets
from authsvc.api.application import SignUpApi
from authsvc.lights import Kind, Status, Verdict
from authsvc.models import EventTransaction, NoSuchAccountError, RemovedAccount, SignUp, User
from authsvc.signups.answers import handle_answers
from authsvc.signups.changes import OutdatedError, change_account, remove_account
from authsvc.signups.events import ANSWER_TOPICS, REQUEST_TOPICS, Holder, decode_answer, requested
from authsvc.signups.outbox import claim_due
from authsvc.signups.registration import KeyTakenError, NewSignUp, Registration, register_new_users, register_users
from authsvc.signups.replay import replay
from authsvc.signups.retention import purge_signups
from authsvc.signups.verdicts import ReportedVerdict, apply_verdicts
from chatsvc.models import ChatUser
from eventbus.messages import Incoming
from eventbus.topics import ensure_topics
from livesettings.values import live
from tests.conftest import new_person
from tests.integration.test_api_access import ask

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.needs("broker", "redis")]
PARTICIPANTS = ("chat", "customer")


@pytest.fixture(autouse=True)
def own_topics(settings) -> None:
    settings.KAFKA_PREFIX = f"changes-{uuid4()}-"
    ensure_topics([*REQUEST_TOPICS.values(), *ANSWER_TOPICS.values()])


def sign_up(**fields: str) -> Registration | KeyTakenError:
    person = new_person()
    values = {"user_id": person.user_id, "email": person.email, "user_name": person.user_name, "role": "ROLE_USER"}
    new = NewSignUp(signup_id=uuid4(), password="a hash", **{**values, **fields})
    [registration] = register_users([new])
    return registration


@pytest.fixture
def kim() -> User:
    signup = sign_up().signup
    answer(signup.id)
    return User.objects.get(owner_signup_id=signup.id)


def answer(transaction_id: UUID, *verdicts: Verdict, held_by: tuple[Holder, ...] = ()) -> EventTransaction:
    """Apply these verdicts, by default success everywhere, and return the row."""
    given = verdicts or [Verdict(service, Status.SUCCESS) for service in PARTICIPANTS]
    apply_verdicts([ReportedVerdict(transaction_id, verdict, held_by) for verdict in given])
    return EventTransaction.objects.get(id=transaction_id)


def event_of(row: EventTransaction, attempt: int = 1) -> dict:
    record = User.objects.filter(owner_signup_id=row.owner_signup_id).first()
    return json.loads(requested(row, record, attempt=attempt).value or b"")


def make_due(row: EventTransaction) -> None:
    EventTransaction.objects.filter(id=row.id).update(next_due_at=timezone.now())


# --- Changes --------------------------------------------------------------------------------------------------------


def test_a_change_is_a_transaction_with_every_light_and_a_new_version(kim):
    kim.user_name, kim.email = "Mina Kim", "mina@example.org"
    row = change_account(kim)
    assert (row.kind, row.record_version, row.changed_fields) == ("change", 2, "email userName")
    assert {name: light.status for name, light in row.state.lights.items()} == {
        "auth": Status.SUCCESS, "chat": Status.PENDING, "customer": Status.PENDING,
    }  # fmt: skip
    stored = User.objects.get(pk=kim.pk)
    assert (stored.user_name, stored.email, stored.version) == ("Mina Kim", "mina@example.org", 2)
    event = event_of(row)
    assert event.pop("occurredAt")
    assert event == {
        "changeId": str(row.id), "ownerSignupId": str(kim.owner_signup_id), "userId": kim.user_id, "version": 2,
        "email": "mina@example.org", "userName": "Mina Kim", "role": "ROLE_USER", "active": True, "attempt": 1,
    }  # fmt: skip
    assert answer(row.id).completed_at is not None


def test_saving_a_field_that_no_service_copies_makes_no_event_transaction(kim):
    kim.is_staff = True
    assert change_account(kim) is None
    stored = User.objects.get(pk=kim.pk)
    assert (stored.is_staff, stored.version) == (True, 1)


def test_an_earlier_change_that_is_sent_again_carries_the_newest_record(kim):
    kim.user_name = "First"
    first = change_account(kim)
    kim.user_name, kim.is_active = "Second", False
    change_account(kim)
    make_due(first)
    [due] = claim_due(limit=10)
    message = requested(due.transaction, due.record, attempt=due.attempt, services=due.services)
    event = json.loads(message.value or b"")
    assert (event["changeId"], event["version"], event["userName"], event["active"]) == (
        str(first.id),
        3,
        "Second",
        False,
    )
    assert (event["attempt"], event["services"]) == (2, ["chat", "customer"])


def test_answers_that_arrive_in_the_wrong_order_turn_the_lights_of_their_own_changes_only(kim):
    kim.user_name = "First"
    first = change_account(kim)
    kim.user_name = "Second"
    second = change_account(kim)
    refused = Verdict("chat", Status.FAIL, "duplicate: email")
    answer(second.id)
    late = answer(first.id, refused, Verdict("customer", Status.SUCCESS))
    assert late.failed_count == 1
    newest = EventTransaction.objects.get(id=second.id)
    assert (newest.failed_count, newest.pending_count) == (0, 0)
    stored = User.objects.get(pk=kim.pk)
    assert (stored.user_name, stored.version) == ("Second", 3)


def test_the_event_of_a_sign_up_carries_a_version_only_once_there_is_a_newer_one(kim):
    signup = SignUp.objects.get(id=kim.owner_signup_id)
    assert event_of(signup).keys().isdisjoint(("version", "active"))
    kim.is_active = False
    change_account(kim)
    assert (event_of(signup)["version"], event_of(signup)["active"]) == (2, False)


def test_the_second_of_two_concurrent_edits_is_refused(kim):
    other = User.objects.get(pk=kim.pk)
    kim.user_name = "First"
    change_account(kim)
    other.user_name = "Second"
    with pytest.raises(OutdatedError):
        change_account(other)
    fresh = User.objects.get(pk=kim.pk)
    fresh.user_name = "Second"
    with pytest.raises(OutdatedError):
        change_account(fresh, expected_version=1)
    assert User.objects.get(pk=kim.pk).user_name == "First"
    assert EventTransaction.objects.filter(kind=Kind.CHANGE).count() == 1


# --- Removals -------------------------------------------------------------------------------------------------------


def test_a_removal_leaves_a_tombstone_and_no_personal_data(kim):
    signup_id, user_id, email = kim.owner_signup_id, kim.user_id, kim.email
    kim.user_name = "Mina Kim"
    change = change_account(kim)
    row = remove_account(kim)
    assert (row.kind, row.record_version) == ("removal", 3)
    assert not User.objects.filter(pk=kim.pk).exists()
    assert RemovedAccount.objects.get(pk=signup_id).version == 3
    event = event_of(row)
    assert event.pop("occurredAt")
    assert event == {
        "changeId": str(row.id), "ownerSignupId": str(signup_id), "userId": user_id, "version": 3, "attempt": 1,
    }  # fmt: skip
    # Every transaction of the account that waited for an answer has one now.
    change.refresh_from_db()
    assert change.failures == "chat: removed\ncustomer: removed"
    assert change.next_due_at is None
    assert answer(row.id).completed_at is not None
    texts = json.dumps(
        [*map(str, EventTransaction.objects.values_list()), *map(str, RemovedAccount.objects.values_list())]
    )
    for text in (user_id, email, "Mina"):
        assert text not in texts
    # It can still be asked for again, for a service whose backup is older.
    assert event_of(EventTransaction.objects.get(id=row.id))["userId"] == ""


def test_an_unanswered_removal_is_sent_again(kim):
    row = remove_account(kim)
    make_due(row)
    [due] = claim_due(limit=10)
    assert (due.transaction.id, due.record, due.services) == (row.id, None, ["chat", "customer"])
    replayed = sum(counts.sent for counts in replay(EventTransaction.objects.filter(id=row.id), producer=None))
    assert replayed == 1


@pytest.mark.parametrize("act", [change_account, remove_account])
def test_an_account_that_was_removed_can_be_neither_changed_nor_removed(kim, act):
    again = User.objects.get(pk=kim.pk)
    remove_account(kim)
    again.user_name = "Back"
    with pytest.raises(NoSuchAccountError):
        act(again)
    assert EventTransaction.objects.exclude(kind=Kind.SIGNUP).count() == 1


def test_the_user_id_and_the_address_are_free_at_once(kim):
    remove_account(kim)
    again = sign_up(user_id=kim.user_id, email=kim.email)
    assert again.signup.is_owner


def test_no_late_answer_or_repeated_request_brings_the_account_back(kim):
    remove_account(kim)
    answer(kim.owner_signup_id)
    new = NewSignUp(
        signup_id=kim.owner_signup_id, user_id=kim.user_id, email=kim.email, user_name="Kim", role="ROLE_USER",
        password="a hash",
    )  # fmt: skip
    [repeated] = register_users([new])
    assert not repeated.is_new
    assert not repeated.signup.may_be_repeated
    assert not User.objects.filter(owner_signup_id=kim.owner_signup_id).exists()


def test_the_sign_up_of_a_removed_account_outlives_the_retention(kim):
    removal = answer(remove_account(kim).id)
    other = sign_up().signup
    answer(other.id)
    EventTransaction.objects.update(created_at="2020-01-01T00:00Z", completed_at="2020-01-01T00:00Z")
    purge_signups(timezone.now(), 100)
    left = set(EventTransaction.objects.values_list("id", flat=True))
    assert left == {kim.owner_signup_id}
    assert removal.id not in left


def test_the_id_of_an_account_whose_sign_up_was_purged_stays_taken(kim):
    EventTransaction.objects.all().delete()
    remove_account(kim)
    for _ in range(2):
        new = NewSignUp(
            signup_id=kim.owner_signup_id, user_id=kim.user_id, email=kim.email, user_name="Kim", role="ROLE_USER",
            password="a hash",
        )  # fmt: skip
        assert register_new_users([new]) == [None]
        [repeated] = register_users([new])
        assert not repeated.is_new
        EventTransaction.objects.update(created_at="2020-01-01T00:00Z", completed_at="2020-01-01T00:00Z")
        purge_signups(timezone.now(), 100)
    assert not User.objects.filter(owner_signup_id=kim.owner_signup_id).exists()


def test_the_admins_log_does_not_name_the_removed_person(kim):
    administrator = User.objects.create_superuser("root-user", "root@example.org", "correct horse 9")
    about_copy = ContentType.objects.get_for_model(ChatUser)
    for content_type, object_id in ((about_copy, "1"), (ContentType.objects.get_for_model(User), str(kim.pk))):
        LogEntry.objects.create(
            user=administrator, content_type=content_type, object_id=object_id, object_repr=kim.user_id, action_flag=2
        )
    remove_account(kim)
    assert set(LogEntry.objects.values_list("object_repr", flat=True)) == {str(kim.owner_signup_id)}


def test_former_user_ids_of_a_removed_account_leave_the_admins_log(kim):
    administrator = User.objects.create_superuser("root-user", "root@example.org", "correct horse 9")
    about_copy = ContentType.objects.get_for_model(ChatUser)
    former = kim.user_id
    for user_id in ("second-id", "third-id"):
        kim.user_id = user_id
        change_account(kim)
    # Somebody else has one of the former user IDs now.
    sign_up(user_id="second-id")
    for name in (former, "second-id", "third-id"):
        LogEntry.objects.create(
            user=administrator, content_type=about_copy, object_id="1", object_repr=name, action_flag=2
        )
    remove_account(kim)
    told = LogEntry.objects.order_by("id").values_list("object_repr", flat=True)
    assert list(told) == [str(kim.owner_signup_id), "second-id", str(kim.owner_signup_id)]


def test_without_participants_a_removal_is_complete_and_keeps_no_user_id(kim, settings):
    settings.SIGNUP_SERVICES = ["auth"]
    row = EventTransaction.objects.get(id=remove_account(kim).id)
    assert (row.user_id, row.user_id_key, row.completed_at is not None) == ("", "", True)


# --- Verdicts -------------------------------------------------------------------------------------------------------

DUPLICATE = Verdict("chat", Status.FAIL, "duplicate: email")


def test_a_duplicate_of_other_accounts_that_auth_has_or_has_removed_decides_nothing(kim):
    lee = User.objects.get(owner_signup_id=sign_up().signup.id)
    remove_account(kim)
    others = (Holder(lee.owner_signup_id, 1), Holder(kim.owner_signup_id, 1))
    new = sign_up().signup
    row = answer(new.id, DUPLICATE, held_by=others)
    assert row.state.lights["chat"].status is Status.PENDING
    assert row.next_due_at is not None
    unknown = Holder(UUID(int=1), 1)
    assert answer(new.id, DUPLICATE, held_by=(others[0], unknown)).failed_count == 1


def test_after_the_last_attempt_a_duplicate_of_another_account_counts(kim):
    lee = User.objects.get(owner_signup_id=sign_up().signup.id)
    kim.email = f"new-{kim.email}"
    change = change_account(kim)
    in_the_way = (Holder(lee.owner_signup_id, 1),)
    assert answer(change.id, DUPLICATE, held_by=in_the_way).failed_count == 0
    EventTransaction.objects.filter(id=change.id).update(attempts=live.RELAY_MAX_ATTEMPTS)
    assert answer(change.id, DUPLICATE, held_by=in_the_way).failures == "chat: duplicate: email"


def test_an_answer_of_another_kind_decides_no_light_of_a_change(kim):
    kim.user_name = "Mina"
    change = change_account(kim)
    for kind in (Kind.SIGNUP, Kind.REMOVAL):
        apply_verdicts([ReportedVerdict(change.id, Verdict("chat", Status.FAIL), kind=kind)])
    assert EventTransaction.objects.get(id=change.id).failed_count == 0
    apply_verdicts([ReportedVerdict(change.id, Verdict("chat", Status.SUCCESS), kind=Kind.CHANGE)])
    assert EventTransaction.objects.get(id=change.id).state.lights["chat"].status is Status.SUCCESS


def test_a_duplicate_of_the_existing_account_decides_the_light_of_a_refused_sign_up(kim):
    refused = sign_up(user_id=kim.user_id).signup
    assert answer(refused.id, DUPLICATE, held_by=(Holder(kim.owner_signup_id, 1),)).failed_count == 2


@pytest.mark.parametrize("held_by", [(), (Holder(UUID(int=1), 7),)])
def test_a_duplicate_of_a_row_that_auth_does_not_know_decides_the_light(held_by):
    assert answer(sign_up().signup.id, DUPLICATE, held_by=held_by).failures == "chat: duplicate: email"


@pytest.mark.parametrize("kind", Kind)
def test_answers_of_every_kind_are_decoded(kind):
    name = "signupId" if kind is Kind.SIGNUP else "changeId"
    document = {
        name: str(UUID(int=3)), "userId": "kim", "service": "chat", "status": "FAIL", "reason": "duplicate: email",
        "occurredAt": "2026-01-01T00:00:00Z", "heldBy": [{"ownerSignupId": str(UUID(int=4)), "version": 2}],
    }  # fmt: skip
    message = Incoming(ANSWER_TOPICS[kind], 0, 0, b"kim", json.dumps(document).encode())
    decoded = decode_answer(message)
    assert (decoded.transaction_id, list(decoded.held_by)) == (UUID(int=3), [Holder(UUID(int=4), 2)])
    other = Incoming(ANSWER_TOPICS[Kind.CHANGE if kind is Kind.SIGNUP else Kind.SIGNUP], 0, 0, b"kim", message.value)
    with pytest.raises(msgspec.ValidationError):
        decode_answer(other)


# --- The API --------------------------------------------------------------------------------------------------------


@pytest.fixture
async def api() -> Iterator[SignUpApi]:
    running = SignUpApi()
    yield running
    await running.close()


@pytest.fixture
def change(kim) -> EventTransaction:
    kim.user_name = "Mina"
    return change_account(kim)


def cookies_of(user: User) -> str:
    client = Client()
    client.force_login(user)
    return "; ".join(f"{name}={morsel.value}" for name, morsel in client.cookies.items())


def stranger(**fields: bool) -> User:
    signup = sign_up().signup
    User._base_manager.filter(owner_signup_id=signup.id).update(**fields)
    return User.objects.get(owner_signup_id=signup.id)


@pytest.fixture
def cookies(kim, db) -> dict[str, str]:
    return {
        "owner": cookies_of(kim),
        "stranger": cookies_of(stranger()),
        "staff": cookies_of(stranger(is_staff=True)),
        "administrator": cookies_of(stranger(is_staff=True, is_superuser=True)),
        "inactive": cookies_of(stranger(is_active=False, is_staff=True, is_superuser=True)),
        "nobody": "",
    }


@pytest.mark.parametrize(
    ("who", "status"),
    [("owner", 200), ("stranger", 404), ("staff", 404), ("administrator", 200), ("inactive", 404), ("nobody", 404)],
)
async def test_the_owner_and_administrators_see_a_change(api, change, cookies, who, status):
    shown = await ask(api, "GET", f"/user/changes/{change.id}", cookie=cookies[who])
    assert shown.status == status
    events = await ask(api, "HEAD", f"/user/changes/{change.id}/events", cookie=cookies[who])
    assert events.status == status
    if status == 200:
        assert shown.document == {
            "changeId": str(change.id), "kind": "change", "version": 2, "complete": False,
            "services": {
                "auth": {"status": "SUCCESS"}, "chat": {"status": "PENDING"}, "customer": {"status": "PENDING"},
            },
        }  # fmt: skip


def answer_late(signup_id: UUID) -> None:
    late = {"signupId": str(signup_id), "userId": "kim", "service": "chat", "status": "FAIL", "reason": "removed"}
    handle_answers([Incoming(ANSWER_TOPICS[Kind.SIGNUP], 0, 0, b"kim", json.dumps(late).encode())])


async def test_tickets_and_sessions_of_a_removed_account_open_only_its_removal(api, kim, change, cookies):
    signup_id = kim.owner_signup_id
    ticket = tickets.issue_ticket(signup_id)
    assert (await ask(api, "GET", f"/user/signups/{signup_id}", signup_ticket=ticket)).status == 200
    removal = await database_sync_to_async(remove_account, thread_sensitive=False)(kim)
    assert (await ask(api, "GET", f"/user/signups/{signup_id}", signup_ticket=ticket)).status == 404
    assert (await ask(api, "GET", f"/user/changes/{change.id}", cookie=cookies["owner"])).status == 404
    assert (await ask(api, "GET", f"/user/changes/{change.id}", cookie=cookies["administrator"])).status == 404
    # A service that was down answers later.
    await database_sync_to_async(answer_late, thread_sensitive=False)(signup_id)
    assert (await ask(api, "GET", f"/user/signups/{signup_id}", signup_ticket=ticket)).status == 404
    shown = await ask(api, "GET", f"/user/changes/{removal.id}", signup_ticket=tickets.issue_ticket(removal.id))
    assert (shown.status, shown.document["kind"]) == (200, "removal")


async def test_a_session_opens_no_sign_up_and_a_ticket_opens_its_change(api, kim, change, cookies):
    signup = await ask(api, "GET", f"/user/signups/{kim.owner_signup_id}", cookie=cookies["owner"])
    assert signup.status == 404
    for path in ("changes", "signups"):
        ticket = tickets.issue_ticket(change.id)
        shown = await ask(api, "GET", f"/user/{path}/{change.id}", signup_ticket=ticket)
        assert shown.document["changeId"] == str(change.id)
