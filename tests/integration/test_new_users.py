"""A participant's own work for new users, in addition to storing their rows (participant/new_users.py)."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from django.db.models import QuerySet

from chatsvc.models import ChatUser
from eventbus.messages import HandledBatch, Incoming
from participant.new_users import NewUsersError
from participant.subscriptions import participant_subscriptions
from runtime.errors import is_transient
from tests.requested_users import new_user_request

pytestmark = pytest.mark.django_db(databases=["chat"], transaction=True)


class Greeter:
    """A participant that writes a note into the row of each new user."""

    def __init__(self, error: Exception | None = None) -> None:
        self.greeted: list[str] = []
        self.error = error
        self.accounts, self.reconcile = participant_subscriptions("chat", ChatUser, on_new_users=self)

    def __call__(self, users: QuerySet[ChatUser]) -> None:
        self.greeted += users.order_by("user_id").values_list("user_id", flat=True)
        users.update(user_name="Greeted")
        if self.error is not None:
            raise self.error

    def handle(self, *batch: Incoming) -> HandledBatch:
        return self.accounts.handle(batch)


def statuses(handled: HandledBatch) -> list[str]:
    return [json.loads(answer.value)["status"] for answer in handled.answers]


def names() -> dict[str, str]:
    return dict(ChatUser.objects.values_list("user_id", "user_name"))


def test_the_services_own_work_runs_once_however_often_a_user_is_requested():
    greeter = Greeter()
    batch = [new_user_request("amy", signup=1), new_user_request("bob", signup=2)]
    assert statuses(greeter.handle(*batch)) == ["SUCCESS", "SUCCESS"]
    stranger = new_user_request("amy", signup=3, owner=1)
    assert statuses(greeter.handle(*batch, stranger)) == ["SUCCESS", "SUCCESS", "FAIL"]
    assert greeter.greeted == ["amy", "bob"]
    assert names() == {"amy": "Greeted", "bob": "Greeted"}


def test_the_services_own_work_runs_once_for_a_user_requested_twice_in_a_batch():
    greeter = Greeter()
    greeter.handle(new_user_request("amy"), new_user_request("amy"), new_user_request("bob", signup=2))
    assert sorted(greeter.greeted) == ["amy", "bob"]


def test_the_services_own_work_runs_for_users_that_reconcile_adds_and_not_for_corrected_ones():
    greeter = Greeter()
    greeter.handle(new_user_request("amy", signup=1))
    greeter.reconcile.handle([page([record("amy", 1, userName="Corrected"), record("bob", 2)])])
    assert greeter.greeted == ["amy", "bob"]
    assert names() == {"amy": "Corrected", "bob": "Greeted"}


def record(user_id: str, owner: int, **fields: object) -> dict[str, object]:
    return {
        "ownerSignupId": str(UUID(int=owner)), "userId": user_id, "email": f"{user_id}@example.org", "userName": "Kim",
        "role": "ROLE_USER",
    } | fields  # fmt: skip


def page(records: Sequence[object]) -> Incoming:
    now = datetime.now(UTC)
    event = {
        "runId": str(UUID(int=7)), "page": 1, "heal": True, "services": ["chat"], "records": records,
        "occurredAt": now.isoformat(), "expiresAt": (now + timedelta(minutes=1)).isoformat(),
    }  # fmt: skip
    return Incoming(topic="user.reconcile.req", partition=0, offset=0, key=b"7:1", value=json.dumps(event).encode())


@pytest.mark.parametrize("times", [1, 2], ids=["alone", "twice in the batch"])
def test_if_the_services_own_work_fails_no_row_is_left_behind(times):
    greeter = Greeter(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        greeter.handle(*[new_user_request("amy")] * times)
    assert names() == {}
    greeter.error = None
    assert statuses(greeter.handle(new_user_request("amy"))) == ["SUCCESS"]
    assert names() == {"amy": "Greeted"}


@pytest.mark.parametrize("times", [1, 2], ids=["alone", "twice in the batch"])
def test_a_violated_constraint_is_a_fault_and_not_a_conflict_to_wait_for(times):
    ChatUser.objects.create(user_id="zoe", email="zoe@example.org")

    def take_another_address(users: QuerySet[ChatUser]) -> None:
        users.update(email="zoe@example.org")

    accounts, _ = participant_subscriptions("chat", ChatUser, on_new_users=take_another_address)
    with pytest.raises(NewUsersError) as caught:
        accounts.handle([new_user_request("amy")] * times)
    assert not is_transient(caught.value)
    assert names().keys() == {"zoe"}
