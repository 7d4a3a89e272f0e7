"""Chat and customer on their databases: the rows after a batch of requests, and the answers."""

import json
import logging
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from uuid import UUID

import pytest
from django.db import connections, transaction
from django.test.utils import CaptureQueriesContext

from eventbus.messages import HandledBatch, Incoming, Subscription
from eventbus.subscriptions import subscriptions_of
from participant.models import ParticipantUser
from participant.user_table import write_tombstones
from signup_sync.participants import PARTICIPANTS
from tests.requested_users import new_user_message as message
from tests.requested_users import new_user_request as asked
from tests.waiting import eventually

pytestmark = pytest.mark.django_db(databases=PARTICIPANTS, transaction=True)

GREEN = ("SUCCESS", None)
SAME_USER_ID = ("FAIL", "duplicate: userId")
SAME_EMAIL = ("FAIL", "duplicate: email")


@dataclass(frozen=True)
class Service:
    """A participant as `manage.py consume_events` finds it, without Kafka."""

    name: str
    subscription: Subscription

    @property
    def model(self) -> type[ParticipantUser]:
        return self.subscription.handle.model

    def handle(self, *batch: Incoming) -> HandledBatch:
        return self.subscription.handle(batch)

    def verdicts(self, *batch: Incoming) -> list[tuple[str, str | None]]:
        handled = self.handle(*batch)
        assert not handled.rejected
        return verdicts(handled)

    def add_by_admin(self, user_id: str, email: str) -> ParticipantUser:
        return self.model.objects.create(user_id=user_id, email=email, user_name="Made by hand")


@pytest.fixture(params=PARTICIPANTS)
def service(request: pytest.FixtureRequest) -> Service:
    return Service(request.param, subscriptions_of(request.param)[0])


def bodies(handled: HandledBatch) -> list[dict[str, str]]:
    return [json.loads(outgoing.value) for outgoing in handled.answers]


def verdicts(handled: HandledBatch) -> list[tuple[str, str | None]]:
    return [(body["status"], body.get("reason")) for body in bodies(handled)]


def test_a_new_user_is_stored_and_answered_with_success(service):
    handled = service.handle(asked("Ｋim", "Kim@Example.org", signup=7))
    row = service.model.objects.get()
    assert (row.user_id, row.user_id_key, row.email) == ("Kim", "kim", "kim@example.org")
    assert (row.user_name, row.role, row.is_active) == ("Kim", "ROLE_USER", True)
    assert (row.signup_id, row.owner_signup_id) == (UUID(int=7), UUID(int=7))
    (body,) = bodies(handled)
    body.pop("occurredAt")
    assert body == {"signupId": str(UUID(int=7)), "userId": "Kim", "service": service.name, "status": "SUCCESS"}
    assert [(outgoing.topic, outgoing.key) for outgoing in handled.answers] == [("user.newUser.res", "Kim")]


def test_each_service_reads_requests_in_a_group_of_its_own(service):
    subscription = service.subscription
    kinds = ("newUser", "changeUser", "removeUser")
    assert (subscription.group, subscription.topics) == (service.name, tuple(f"user.{kind}.req" for kind in kinds))
    assert subscription.answers_to == tuple(f"user.{kind}.res" for kind in kinds)


def test_each_service_keeps_its_users_to_itself():
    chat, customer = (Service(name, subscriptions_of(name)[0]) for name in ("chat", "customer"))
    chat.handle(asked())
    assert chat.model.objects.count() == 1
    assert not customer.model.objects.exists()
    assert customer.verdicts(asked(signup=2)) == [GREEN]


def test_a_user_that_the_service_already_had_is_reported(service):
    service.add_by_admin("KIM", "other@example.org")
    service.add_by_admin("lee", "Lee@Example.org")
    assert service.verdicts(asked(), asked("new", "lee@example.org", signup=2)) == [SAME_USER_ID, SAME_EMAIL]
    assert service.verdicts(asked("kim", "lee@example.org")) == [SAME_USER_ID]
    assert service.model.objects.count() == 2


def test_a_redelivery_gets_the_same_answer(service):
    service.add_by_admin("lee", "lee@example.org")
    batch = [asked(signup=1), asked(signup=2, owner=1), asked("lee", "new@example.org", signup=3), asked(signup=1)]
    first = service.verdicts(*batch)
    assert first == [GREEN, SAME_USER_ID, SAME_USER_ID, GREEN]
    assert service.verdicts(*batch) == first
    assert service.model.objects.count() == 2


def test_a_strangers_request_that_overtakes_the_owners_does_not_turn_the_owner_red(service):
    assert service.verdicts(asked(signup=2, owner=1)) == [GREEN]
    assert service.verdicts(asked(signup=1), asked(signup=3, owner=1)) == [GREEN, SAME_USER_ID]
    assert service.verdicts(asked(signup=2, owner=1)) == [GREEN]
    assert service.model.objects.get().signup_id == UUID(int=2)


def test_a_replay_adds_a_lost_row_again(service):
    service.handle(asked())
    service.model.objects.all().delete()
    assert service.verdicts(asked(attempt=2, services=[service.name])) == [GREEN]
    assert service.model.objects.get().user_id == "kim"


def test_a_request_to_other_services_is_neither_stored_nor_answered(service):
    handled = service.handle(asked(services=["auth", "another"]), asked("lee", "lee@example.org", services=[]))
    assert handled == HandledBatch(answers=[], rejected=[])
    assert not service.model.objects.exists()


def test_a_deactivated_user_stays_deactivated(service):
    service.handle(asked())
    service.model.objects.update(is_active=False)
    assert service.verdicts(asked(), asked(signup=2)) == [GREEN, SAME_USER_ID]
    assert not service.model.objects.get().is_active


def test_a_poison_message_is_dead_lettered_alone(service):
    poison = [message(b"garbage"), message(None), asked(userName="a\0b"), asked("x" * 65), message(b'{"userId": "x"}')]
    batch = [asked(), *poison, asked("lee", "lee@example.org", signup=2)]
    handled = service.handle(*batch)
    assert verdicts(handled) == [GREEN, GREEN]
    assert [incoming for incoming, _ in handled.rejected] == poison
    assert set(service.model.objects.values_list("user_id", flat=True)) == {"kim", "lee"}


def test_a_batch_of_nothing_but_poison_is_dead_lettered(service):
    assert [incoming for incoming, _ in service.handle(message(b"")).rejected] == [message(b"")]


def test_every_valid_request_can_be_stored(service):
    """Texts at the limits of the columns, and characters that a database might refuse or change."""
    user_ids = ["가" * 64, "ß" * 64, "\u0390\u0323" * 32, "😀\U0010ffff", "\uffff\x01\x7f", "'\"\\%_;--", " a\n"]
    batch = [
        asked(user_id, f"{n}" + "é" * 240 + "@example.org", signup=n, userName=user_id, role="R" * 32)
        for n, user_id in enumerate(user_ids)
    ]
    assert service.verdicts(*batch) == [GREEN] * len(batch)
    assert set(service.model.objects.values_list("user_name", flat=True)) == set(user_ids)
    assert service.verdicts(*batch) == [GREEN] * len(batch)


def test_a_full_batch_takes_a_handful_of_statements(service):
    batch = [asked(f"user-{n}", f"{n}@example.org", signup=n) for n in range(500)]
    with CaptureQueriesContext(connections[service.name]) as statements:
        assert service.verdicts(*batch) == [GREEN] * 500
    assert len(statements) <= 10
    assert service.model.objects.count() == 500


# --- Changes and removals -----------------------------------------------------------------------------------------


def change(user_id="kim", email="kim@example.org", *, owner=1, version=2, **changes) -> Incoming:
    ids = {"changeId": str(UUID(int=1000 + owner)), "ownerSignupId": str(UUID(int=owner)), "userId": user_id}
    values = {"email": email, "userName": "Kim", "role": "ROLE_USER", "active": True, "version": version}
    return replace(message(json.dumps(ids | values | changes).encode()), topic="user.changeUser.req")


def removal(owner=1, *, version=9) -> Incoming:
    ids = {"changeId": str(UUID(int=2000 + owner)), "ownerSignupId": str(UUID(int=owner)), "userId": ""}
    return replace(message(json.dumps(ids | {"version": version}).encode()), topic="user.removeUser.req")


def test_a_change_updates_only_the_fields_that_auth_decides(service):
    service.handle(asked(signup=2, owner=1))
    service.model.objects.update(is_active=False)
    [answer] = service.handle(change("lee", "lee@example.org", userName="Lee", role="ROLE_ADMIN", active=False)).answers
    row = service.model.objects.get()
    assert (row.user_id_key, row.email, row.user_name, row.role) == ("lee", "lee@example.org", "Lee", "ROLE_ADMIN")
    assert (row.version, row.is_account_active, row.is_active) == (2, False, False)
    assert (row.signup_id, row.owner_signup_id) == (UUID(int=2), UUID(int=1))
    body = json.loads(answer.value)
    assert (answer.topic, body["changeId"], body["status"]) == ("user.changeUser.res", str(UUID(int=1001)), "SUCCESS")


def test_a_deactivation_keeps_the_user_out_whatever_the_administrator_here_decides(service):
    service.handle(asked())
    assert service.model.objects.get().may_enter
    service.handle(change(active=False))
    assert not service.model.objects.get().may_enter
    service.handle(change(version=3))
    assert service.model.objects.get().may_enter


def test_a_change_to_an_address_that_a_row_made_by_hand_has_changes_nothing(service):
    service.handle(asked())
    service.add_by_admin("by-hand", "taken@example.org")
    before = list(service.model.objects.order_by("id").values())
    [body] = bodies(service.handle(change("new", "taken@example.org")))
    assert (body["status"], body["reason"], "heldBy" in body) == ("FAIL", "duplicate: email", False)
    assert list(service.model.objects.order_by("id").values()) == before


def test_accounts_that_exchange_their_addresses_in_one_batch_both_get_them(service):
    service.handle(asked("a", "a@example.org", signup=1), asked("b", "b@example.org", signup=2))
    swapped = [change("a", "b@example.org", owner=1), change("b", "a@example.org", owner=2)]
    assert service.verdicts(*swapped) == [GREEN, GREEN]
    assert set(service.model.objects.values_list("user_id", "email")) == {
        ("a", "b@example.org"),
        ("b", "a@example.org"),
    }


def test_a_removal_leaves_nothing_of_the_person_and_a_new_person_gets_the_user_id(service):
    service.handle(asked(userName="Mina Kim", role="ROLE_ADMIN"))
    assert service.verdicts(removal(), asked(signup=2)) == [GREEN, GREEN]
    [tombstone] = service.model.every.exclude(removed_at=None).values()
    about = {str(UUID(int=1)), "removed " + str(UUID(int=1))}
    assert {str(value) for value in tombstone.values() if isinstance(value, str | UUID) and str(value)} == about
    assert (tombstone["version"], tombstone["created_at"]) == (9, tombstone["removed_at"])
    assert service.model.objects.get().owner_signup_id == UUID(int=2)


def test_no_late_message_restores_a_removed_account(service):
    service.handle(removal())
    removed = ("FAIL", "removed")
    late = [asked(), asked(signup=2, owner=1), change(version=20), removal(version=3)]
    assert service.verdicts(*late) == [removed, removed, removed, GREEN]
    # The first of a batch of new users is inserted without being read.
    assert service.verdicts(asked(), asked("lee", "lee@example.org", signup=3)) == [removed, GREEN]
    assert service.model.objects.get().user_id == "lee"


def test_a_full_batch_of_all_kinds_takes_a_handful_of_statements(service):
    service.handle(*(asked(f"u{n}", f"{n}@example.org", signup=n) for n in range(1, 401)))
    batch = [
        *(change(f"u{n}", f"new-{n}@example.org", owner=n) for n in range(1, 201)),
        *(removal(n) for n in range(201, 401)),
        *(asked(f"u{n}", f"{n}@example.org", signup=n) for n in range(401, 501)),
    ]
    with CaptureQueriesContext(connections[service.name]) as statements:
        assert service.verdicts(*batch) == [GREEN] * 500
    assert len(statements) <= 12
    assert (service.model.objects.count(), service.model.objects.filter(version=2).count()) == (300, 200)


# --- Two writers ------------------------------------------------------------------------------------------------


@pytest.fixture
def beside(service: Service) -> Iterator[ThreadPoolExecutor]:
    """Threads that handle batches while the test does something else, each on a separate connection."""

    class HandlerThreads(ThreadPoolExecutor):
        def handle(self, batch: Sequence[Incoming], start: threading.Barrier | None = None):
            def run() -> HandledBatch:
                try:
                    if start:
                        start.wait(timeout=60)
                    return service.handle(*batch)
                finally:
                    connections[service.name].close()

            return self.submit(run)

    with HandlerThreads(2) as threads:
        yield threads


def is_waiting_for_us(service: Service) -> bool:
    """Whether another PostgreSQL backend waits for a lock that this thread's transaction holds."""
    with connections[service.name].cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY(pg_blocking_pids(pid))"
        )
        return cursor.fetchone()[0] > 0


def crossings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The error of each attempt at a batch that conflicted with another writer."""
    return [str(record.args[-1]) for record in caplog.records if record.name == "runtime.database.transactions"]


def test_two_concurrent_batches_store_each_user_once(service, beside):
    """The userIds are in the order of the emails in one batch and in the opposite order in the other: each waits for a
    row that the other inserted.
    """
    count = 200
    emails = [f"{n:03}@example.org" for n in range(count)]
    batches = [
        [asked(f"a-{n:03}", email, signup=1000 + n) for n, email in enumerate(emails)],
        [asked(f"b-{n:03}", email, signup=2000 + n) for n, email in enumerate(reversed(emails))],
    ]
    start = threading.Barrier(2)
    one, other = (future.result(timeout=60) for future in [beside.handle(batch, start) for batch in batches])
    assert set(verdicts(one) + verdicts(other)) == {GREEN, SAME_EMAIL}
    kept = {body["signupId"] for body in bodies(one) + bodies(other) if body["status"] == "SUCCESS"}
    assert {str(row.signup_id) for row in service.model.objects.all()} == kept
    assert sorted(service.model.objects.values_list("email", flat=True)) == emails


def test_a_concurrent_removal_and_sign_up_leave_no_row_whichever_is_first(service, beside):
    owners = range(1, 201)
    start = threading.Barrier(2)
    new = beside.handle([asked(f"u{n:03}", f"{n}@example.org", signup=n) for n in owners], start)
    gone = beside.handle([removal(n) for n in reversed(owners)], start)
    assert set(verdicts(new.result(timeout=60))) <= {GREEN, ("FAIL", "removed")}
    assert set(verdicts(gone.result(timeout=60))) == {GREEN}
    assert (service.model.objects.count(), service.model.every.count()) == (0, 200)


def test_the_newest_of_concurrent_changes_stays(service, beside):
    owners = range(1, 201)
    start = threading.Barrier(2)
    batches = [
        [change(f"v{version}-{n}", f"v{version}-{n}@example.org", owner=n, version=version) for n in order]
        for version, order in ((2, owners), (3, reversed(owners)))
    ]
    for handled in [beside.handle(batch, start) for batch in batches]:
        assert set(verdicts(handled.result(timeout=60))) == {GREEN}
    assert set(service.model.objects.values_list("user_id", flat=True)) == {f"v3-{n}" for n in owners}


@pytest.mark.needs("postgresql")
def test_a_sign_up_that_waits_for_a_removal_in_progress_does_not_restore_the_account(service, beside):
    service.handle(asked())
    with transaction.atomic(using=service.name):
        write_tombstones(service.model, [(UUID(int=1), 2)])
        handled = beside.handle([asked()])
        eventually(lambda: is_waiting_for_us(service), what="the handler waits for the tombstone")
    assert verdicts(handled.result(timeout=60)) == [("FAIL", "removed")]
    assert not service.model.objects.exists()


def test_a_batch_that_conflicts_with_another_writer_is_decided_after_it(service, beside, caplog):
    """The handler inserts a userId that an open transaction has just inserted, and waits for that transaction."""
    caplog.set_level(logging.INFO)
    with transaction.atomic(using=service.name):
        service.add_by_admin("kim", "other@example.org")
        handled = beside.handle([asked(), asked("lee", "lee@example.org", signup=2)])
        if connections[service.name].vendor == "postgresql":
            eventually(lambda: is_waiting_for_us(service), what="the handler waits for the row")
    assert verdicts(handled.result(timeout=60)) == [SAME_USER_ID, GREEN]
    assert set(service.model.objects.values_list("user_id", flat=True)) == {"kim", "lee"}
    assert not crossings(caplog)


def test_a_batch_that_conflicts_with_another_writer_after_reading_is_decided_again(service, beside, caplog):
    """The batch contains a request twice, so the handler reads first. It finds nobody, and inserts a userId that is
    taken by then.
    """
    caplog.set_level(logging.INFO)
    with transaction.atomic(using=service.name):
        service.add_by_admin("kim", "other@example.org")
        handled = beside.handle([asked(), asked(), asked("lee", "lee@example.org", signup=2)])
        if connections[service.name].vendor == "postgresql":
            eventually(lambda: is_waiting_for_us(service), what="the handler waits for the row")
    assert verdicts(handled.result(timeout=30)) == [SAME_USER_ID, SAME_USER_ID, GREEN]
    assert set(service.model.objects.values_list("user_id", flat=True)) == {"kim", "lee"}
    if connections[service.name].vendor == "postgresql":
        assert crossings(caplog) == ["IntegrityError"]


@pytest.mark.needs("postgresql")
def test_a_deadlock_repeats_the_whole_batch(service, beside, caplog):
    caplog.set_level(logging.INFO)
    with transaction.atomic(using=service.name):
        with connections[service.name].cursor() as cursor:
            # The handler checks for a deadlock first, so it is the one that PostgreSQL aborts.
            cursor.execute("SET LOCAL deadlock_timeout = '1min'")
        service.add_by_admin("zoe", "second@example.org")
        handled = beside.handle(
            [asked("amy", "first@example.org", signup=1), asked("bob", "second@example.org", signup=2)]
        )
        eventually(lambda: is_waiting_for_us(service), what="the handler has inserted amy and waits with bob")
        service.add_by_admin("zed", "first@example.org")
    assert verdicts(handled.result(timeout=60)) == [SAME_EMAIL, SAME_EMAIL]
    assert set(service.model.objects.values_list("user_id", flat=True)) == {"zed", "zoe"}
    # If the other transaction commits late, the next attempt finds its row.
    assert crossings(caplog)[0] == "OperationalError"
