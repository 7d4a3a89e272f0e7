"""Sign-ups continue when auth's clock jumps forward or back (docs/adr/0017)."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from uuid import UUID

import pytest
from django.conf import settings
from django.utils import timezone

from authsvc.lights import Status, Verdict
from authsvc.models import SignUp
from authsvc.signups.outbox import ask_again, claim_due
from authsvc.signups.retention import purge_signups
from authsvc.signups.verdicts import ReportedVerdict, apply_verdicts
from tests.signups import save_signup

pytestmark = pytest.mark.django_db(transaction=True)

DAY = timedelta(days=1)


class Clock:
    """Django's current time: the real time, moved forward or back."""

    def __init__(self) -> None:
        self.ahead = timedelta()
        self._now = timezone.now

    def now(self) -> datetime:
        return self._now() + self.ahead


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    clock = Clock()
    monkeypatch.setattr(timezone, "now", clock.now)
    return clock


def begin(name: str) -> UUID:
    return save_signup(name).id


def answered(signup_id: UUID, *services: str) -> SignUp:
    apply_verdicts([ReportedVerdict(signup_id, Verdict(name, Status.SUCCESS)) for name in services])
    return SignUp.objects.get(id=signup_id)


def wait_of(signup_id: UUID, clock: Clock) -> timedelta:
    """The time until the sign-up is due again."""
    return SignUp.objects.get(id=signup_id).next_due_at - clock.now()


def test_a_sign_up_begun_before_the_clock_was_put_back_is_due_at_once_and_then_at_the_usual_pauses(clock):
    clock.ahead = DAY
    signup_id = begin("kim")
    clock.ahead = timedelta()
    assert [event.transaction.id for event in claim_due(limit=10)] == [signup_id]
    assert wait_of(signup_id, clock) < timedelta(seconds=settings.RELAY_MAX_PAUSE * 1.2)
    assert claim_due(limit=10) == []


def test_a_sign_up_that_a_relay_with_a_fast_clock_postponed_to_tomorrow_is_due_at_once(clock):
    signup_id = begin("kim")
    clock.ahead = DAY
    assert [event.attempt for event in claim_due(limit=10)] == [2]
    assert claim_due(limit=10) == []
    clock.ahead = timedelta()
    assert [event.attempt for event in claim_due(limit=10)] == [3]
    assert SignUp.objects.get(id=signup_id).stalled_at is None


def test_a_replay_with_a_fast_clock_is_due_at_once(clock):
    signup_id = begin("kim")
    clock.ahead = DAY
    ask_again([signup_id])
    clock.ahead = timedelta()
    assert len(claim_due(limit=10)) == 1


def test_sign_ups_due_by_the_right_clock_are_claimed_first_and_the_limit_holds(clock):
    clock.ahead = DAY
    begin("tomorrow")
    clock.ahead = timedelta()
    due = [begin("kim"), begin("lee")]
    SignUp.objects.filter(id__in=due).update(next_due_at=clock.now() - timedelta(seconds=1))
    assert {event.transaction.id for event in claim_due(limit=2)} == set(due)
    assert len(claim_due(limit=2)) == 1


def test_versions_rise_and_a_sign_up_is_completed_whatever_the_clock_says(clock):
    signup_id = begin("kim")
    clock.ahead = DAY
    assert answered(signup_id, "chat").version == 3
    clock.ahead = -DAY
    signup = answered(signup_id, "customer")
    assert (signup.version, signup.pending_count, signup.next_due_at) == (4, 0, None)
    assert signup.completed_at < signup.created_at


def test_a_clock_that_is_a_day_fast_purges_nothing_within_the_replay_window(clock):
    signup_id = begin("kim")
    answered(signup_id, "chat", "customer")
    clock.ahead = DAY
    assert purge_signups(timezone.now() - settings.SIGNUP_RETENTION * DAY, 10) == 0
    assert SignUp.objects.filter(id=signup_id).exists()
