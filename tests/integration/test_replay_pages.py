"""The pages of a replay, at their bounds, with a fake producer."""

import json
from collections.abc import Sequence
from uuid import UUID, uuid4

import pytest

from authsvc.lights import Kind, Status, TransactionState, Verdict
from authsvc.models import EventTransaction, User
from authsvc.signups import replay as replay_module
from authsvc.signups.registration import NewSignUp, register_users
from authsvc.signups.replay import ACKNOWLEDGED_WITHIN, ReplayCounts, replay
from authsvc.signups.verdicts import ReportedVerdict, apply_verdicts
from eventbus.errors import DeliveryError
from eventbus.messages import Outgoing

pytestmark = pytest.mark.django_db


class KeepingProducer:
    """Records each batch with its timeout, and reports the messages with these user IDs as not acknowledged."""

    def __init__(self, *failing: str) -> None:
        self.batches: list[Sequence[Outgoing]] = []
        self.timeouts: list[float] = []
        self._failing = failing

    def begin_all(self, messages: Sequence[Outgoing], *, timeout: float) -> "KeepingDelivery":
        self.batches.append(messages)
        self.timeouts.append(timeout)
        return KeepingDelivery([each for each in messages if json.loads(each.value)["userId"] in self._failing])

    def events(self) -> dict[str, dict[str, object]]:
        documents = [json.loads(message.value) for batch in self.batches for message in batch]
        return {document["userId"]: document for document in documents}


class KeepingDelivery:
    def __init__(self, failed: list[Outgoing]) -> None:
        self._failed = failed

    def wait(self) -> None:
        if self._failed:
            raise DeliveryError(self._failed, "it was told to fail")


@pytest.fixture(autouse=True)
def woken(monkeypatch) -> list[TransactionState]:
    """The states that were written to the projection."""
    states: list[TransactionState] = []

    class Projection:
        def write_and_wake(self, written: Sequence[TransactionState]) -> None:
            states.extend(written)

    monkeypatch.setattr(replay_module, "projection", Projection)
    return states


def begin(*names: str, answered: tuple[str, ...] = (), **columns: object) -> list[UUID]:
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


def replayed(producer: KeepingProducer | None, service: str | None = None) -> list[ReplayCounts]:
    return list(replay(EventTransaction.objects.all(), producer=producer, service=service))


@pytest.mark.parametrize(("size", "pages"), [(0, []), (2, [2]), (3, [3]), (4, [3, 1]), (6, [3, 3]), (7, [3, 3, 1])])
def test_each_sign_up_is_sent_once_in_full_pages_and_a_last_one(size, pages, monkeypatch):
    monkeypatch.setattr(replay_module, "PAGE", 3)
    ids = begin(*[f"user-{n}" for n in range(size)])
    producer = KeepingProducer()
    assert replayed(producer) == [ReplayCounts(sent=count) for count in pages]
    assert [len(batch) for batch in producer.batches] == pages
    assert producer.timeouts == [ACKNOWLEDGED_WITHIN] * len(pages)
    sent = [UUID(json.loads(message.value)["signupId"]) for batch in producer.batches for message in batch]
    assert sent == sorted(ids)


def test_counts_are_added_by_their_kind():
    assert ReplayCounts(1, 20, 300) + ReplayCounts(4, 50, 600) == ReplayCounts(sent=5, skipped=70, failed=900)
    assert ReplayCounts() == ReplayCounts(0, 0, 0)


def test_unacknowledged_sign_ups_count_as_failed_and_those_without_a_user_as_skipped():
    begin("kim", "lee", "park", "choi", "gone")
    User.objects.filter(user_id="gone").delete()
    assert replayed(KeepingProducer("kim", "lee", "park")) == [ReplayCounts(sent=1, skipped=1, failed=3)]


def test_a_dry_run_counts_each_page_and_changes_nothing(monkeypatch):
    monkeypatch.setattr(replay_module, "PAGE", 2)
    begin("kim", "lee", "park", attempts=5)
    User.objects.filter(user_id="park").delete()
    before = list(EventTransaction.objects.values())
    assert sum(replayed(None, service="added"), ReplayCounts()) == ReplayCounts(sent=2, skipped=1)
    assert list(EventTransaction.objects.values()) == before


def test_only_incomplete_sign_ups_restart_their_attempts():
    begin("one-pending", answered=("chat",), attempts=4)
    begin("complete", answered=("chat", "customer"), attempts=4)
    producer = KeepingProducer()
    replayed(producer)
    assert {name: event["attempt"] for name, event in producer.events().items()} == {"one-pending": 1, "complete": 4}
    assert {row.user_id: row.attempts for row in EventTransaction.objects.all()} == {"one-pending": 1, "complete": 4}
    assert all("services" not in event for event in producer.events().values())


def test_an_added_service_gets_a_light_where_it_lacks_one_and_is_asked_alone(settings, woken):
    settings.SIGNUP_SERVICES = ["auth", "chat"]
    [lacking] = begin("lacking", answered=("chat",), attempts=4)
    settings.SIGNUP_SERVICES = ["auth", "chat", "customer"]
    begin("complete", answered=("chat", "customer"), attempts=4)
    begin("pending", attempts=4)
    producer = KeepingProducer()
    replayed(producer, service="customer")
    events = producer.events()
    assert {name: event["attempt"] for name, event in events.items()} == {"lacking": 1, "complete": 4, "pending": 1}
    assert all(event["services"] == ["customer"] for event in events.values())
    assert [(state.transaction_id, state.pending) for state in woken] == [(lacking, ["customer"])]


def test_a_removal_is_sent_although_its_user_is_gone():
    [kim] = begin("kim")
    EventTransaction.objects.filter(id=kim).update(kind=Kind.REMOVAL, record_version=3)
    User.objects.all().delete()
    producer = KeepingProducer()
    assert replayed(producer) == [ReplayCounts(sent=1)]
    [[message]] = producer.batches
    assert message.topic == "user.removeUser.req"
    assert json.loads(message.value)["changeId"] == str(kim)
