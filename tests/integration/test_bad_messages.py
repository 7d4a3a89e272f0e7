"""Every reader of events with invalid messages, on the database of the chosen stack: a bad message makes no reader
fail, and the good messages beside it are handled."""

import json
from collections.abc import Sequence
from itertools import count
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.conf import settings
from hypothesis import given

from authsvc.lights import Status
from authsvc.models import SignUp
from authsvc.reconcile.events import RECONCILE_ANSWERED, RECONCILE_REQUESTED
from authsvc.reconcile.reconciliation import Reconciliation
from authsvc.signups.answers import handle_answers
from authsvc.signups.events import NEW_USER_ANSWERED, NEW_USER_REQUESTED
from authsvc.signups.states import read_states
from eventbus.deadletters.letters import Origin, store_letters
from eventbus.messages import HandledBatch, Incoming, Outgoing, dead_letter
from eventbus.models import DeadLetter
from eventbus.subscriptions import subscriptions_of
from runtime.errors import PermanentError
from tests.garbage import bounded, messages
from tests.signups import save_signup

pytestmark = pytest.mark.django_db(databases=["default", "chat", "customer"], transaction=True)

numbers = count(1)


def message(topic: str, document: dict[str, Any]) -> Incoming:
    return Incoming(topic, 0, 0, b"key", json.dumps(document).encode())


def request(name: str, *, signup_id: UUID | None = None) -> dict[str, Any]:
    owner = str(signup_id or uuid4())
    return {
        "signupId": owner, "ownerSignupId": owner, "userId": name, "email": f"{name}@example.org", "userName": name,
        "role": "ROLE_USER", "occurredAt": "2026-01-01T00:00:00Z", "attempt": 1, "services": ["chat", "customer"],
    }  # fmt: skip


def assert_good_ones_pass(handled: HandledBatch, good: Sequence[Incoming], batch: Sequence[Incoming]) -> None:
    rejected = [each for each, _ in handled.rejected]
    assert not [each for each in good if each in rejected]
    assert all(each in batch for each in rejected)


@pytest.mark.parametrize("service", ["chat", "customer"])
@bounded
@given(bad=messages(NEW_USER_REQUESTED, request("mallory")))
def test_a_participant_answers_the_good_requests(service, bad):
    requests, _ = subscriptions_of(service)
    fresh = [request(f"good-{next(numbers)}") for _ in range(2)]
    good = [message(NEW_USER_REQUESTED, each) for each in fresh]
    batch = [good[0], *bad, good[1]]
    handled = requests.handle(batch)
    assert_good_ones_pass(handled, good, batch)
    answers = [json.loads(answer.value or b"") for answer in handled.answers]
    green = {answer["signupId"] for answer in answers if answer["status"] == "SUCCESS"}
    assert {each["signupId"] for each in fresh} <= green
    assert len(answers) <= len(batch) - len(handled.rejected)


def page(**more: Any) -> dict[str, Any]:
    record = {name: value for name, value in request("mallory").items() if name not in ("signupId", "attempt")}
    return {
        "runId": str(uuid4()), "page": 1, "heal": True, "occurredAt": "2026-01-01T00:00:00Z",
        "expiresAt": "2999-01-01T00:00:00Z", "services": ["chat", "customer"], "records": [record],
        "owners": {"after": str(UUID(int=1)), "upTo": str(UUID(int=2))}, "unowned": False, "gone": [str(uuid4())],
    } | more  # fmt: skip


@pytest.mark.parametrize("service", ["chat", "customer"])
@bounded
@given(bad=messages(RECONCILE_REQUESTED, page(), request("mallory") | page()))
def test_a_participant_answers_the_good_pages(service, bad):
    _, pages = subscriptions_of(service)
    fresh = page(records=[])
    good = [message(RECONCILE_REQUESTED, fresh)]
    batch = [*bad, *good]
    handled = pages.handle(batch)
    assert_good_ones_pass(handled, good, batch)
    assert fresh["runId"] in [json.loads(answer.value or b"")["runId"] for answer in handled.answers]


def new_signup() -> UUID:
    name = f"good-{next(numbers)}"
    return save_signup(name).id


def verdict(signup_id: UUID, service: str = "chat", **more: Any) -> dict[str, Any]:
    return {
        "signupId": str(signup_id), "userId": "kim", "service": service, "status": "SUCCESS",
        "occurredAt": "2026-01-01T00:00:00Z",
    } | more  # fmt: skip


VICTIM = uuid4()


@pytest.mark.needs("redis")
@bounded
@given(bad=messages(NEW_USER_ANSWERED, verdict(VICTIM, status="FAIL", reason="duplicate: userId"), verdict(uuid4())))
def test_auth_turns_the_good_lights(bad):
    # The row that the bad messages are about, besides other users.
    known = SignUp.objects.filter(id=VICTIM)
    if not known:
        SignUp.objects.filter(id=new_signup()).update(id=VICTIM)
    signup_id = new_signup()
    good = [message(NEW_USER_ANSWERED, verdict(signup_id, service)) for service in ("chat", "customer")]
    batch = [good[0], *bad, good[1]]
    handled = handle_answers(batch)
    assert_good_ones_pass(handled, good, batch)
    assert read_states([signup_id])[signup_id].is_complete
    assert set(read_states([VICTIM])[VICTIM].lights) == set(settings.SIGNUP_SERVICES)


@pytest.mark.needs("redis")
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("reason", "a\0b"),
        ("reason", "x" * 256),
        ("service", "nobody"),
        ("service", "a\0b"),
        ("signupId", str(UUID(int=3))),
    ],
)
def test_an_answer_that_cannot_be_stored_is_dead_lettered_and_turns_no_light(field, value):
    signup_id = new_signup()
    wrong = message(NEW_USER_ANSWERED, verdict(signup_id, status="FAIL", reason="duplicate: userId") | {field: value})
    [(rejected, error)] = handle_answers([wrong]).rejected
    assert rejected is wrong
    assert str(error)
    assert read_states([signup_id])[signup_id].lights["chat"].status is Status.PENDING


# --- Requests of participants ------------------------------------------------------------------------------------


class Answering:
    """Kafka for a run of `reconcile`: answers each page first with the bad answers, then with the good ones."""

    def __init__(self, bad: Sequence[Incoming]) -> None:
        self.answers = list(bad)

    def send_all(self, pages: Sequence[Outgoing], *, timeout: float) -> None:
        for each in pages:
            asked = json.loads(each.value or b"")
            # The invalid message may be about this very page.
            self.answers = [self._about(asked, answer) for answer in self.answers]
            self.answers += [message(RECONCILE_ANSWERED, finding(asked, name)) for name in asked["services"]]

    def read(self, timeout: float) -> list[Incoming]:
        answers, self.answers = self.answers, []
        return answers

    @staticmethod
    def _about(asked: dict[str, Any], answer: Incoming) -> Incoming:
        value = (answer.value or b"").replace(str(VICTIM).encode(), asked["runId"].encode())
        return Incoming(answer.topic, answer.partition, answer.offset, answer.key, value, answer.headers)


def finding(asked: dict[str, Any], service: str, **more: Any) -> dict[str, Any]:
    about = {"kind": "superfluous", "userId": "by-hand", "email": "by-hand@example.org"}
    return {
        "runId": asked["runId"], "page": asked["page"], "service": service, "findings": [about | more], "more": False,
        "occurredAt": "2026-01-01T00:00:00Z",
    }  # fmt: skip


ASKED = {"runId": str(VICTIM), "page": 1}
BAD_FINDINGS = [
    finding(ASKED, "chat") | {"more": True},
    finding(ASKED, "chat", userId="a\0b"),
    finding(ASKED, "chat", kind="conflicting", ownerSignupId=str(uuid4()), heldBy=[{"userId": "\0", "email": "\0"}]),
]


@bounded
@given(bad=messages(RECONCILE_ANSWERED, *BAD_FINDINGS))
def test_reconcile_finishes_despite_bad_messages(bad):
    kafka = Answering(bad)
    found = []
    run = Reconciliation(
        kafka, kafka, services=["chat", "customer"], heal=False, timeout=5, report=lambda *each: found.append(each)
    )
    assert sum(run.run()) == 0
    assert [each.is_silent for each in run.result.values()] == [False, False]
    # Each page was answered with it.
    assert {each.user_id for service, each in found if service == "customer"} == {"by-hand"}


# --- Dead letters -------------------------------------------------------------------------------------------------

ORIGINS = {"asked.readers.dlt": Origin("asked", "readers")}


@bounded
@given(bad=messages("asked.readers.dlt", request("mallory")))
def test_every_dead_letter_is_kept(bad):
    DeadLetter.objects.all().delete()
    as_put_aside = [dead_letter(each, PermanentError("a\0b\ud800"), group="readers") for each in bad]
    letters = [
        Incoming("asked.readers.dlt", 0, offset, each.key, each.value, each.headers, offset)
        for offset, each in enumerate(as_put_aside)
    ]
    store_letters([*bad, *letters], ORIGINS)
    assert DeadLetter.objects.filter(letter_topic="asked.readers.dlt").count() >= len(letters)
    for row in DeadLetter.objects.all():
        assert row.value is None or row.value_text is not None
        assert row.header_texts is not None
