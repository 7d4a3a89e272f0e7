"""Retention at its exact bounds, with a stopped clock, and the messages of its checks."""

from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from django.contrib.admin.models import CHANGE, LogEntry
from django.utils import timezone

from authsvc.lights import Kind
from authsvc.models import EventTransaction, SignUp, User
from authsvc.signups.registration import NewSignUp, register_users
from authsvc.signups.retention import (
    check_relay,
    check_retention,
    erase_expired,
    expired_signups,
    in_days,
    old_signups,
    purge_signups,
    replay_window,
    seconds_of_attempts,
)
from livesettings.values import live

pytestmark = pytest.mark.django_db

NOW = timezone.now()
MOMENT = timedelta(microseconds=1)
DAY = timedelta(days=1)


@pytest.fixture(autouse=True)
def still(monkeypatch) -> None:
    monkeypatch.setattr(timezone, "now", lambda: NOW)


def begin(*names: str, **columns: object) -> list[UUID]:
    """Save sign-ups with these values in their rows."""
    new = [
        NewSignUp(
            signup_id=uuid4(), user_id=name, email=f"{name}@example.org", user_name=name, role="ROLE_USER",
            password="the hash",
        )
        for name in names
    ]  # fmt: skip
    register_users(new)
    ids = [each.signup_id for each in new]
    EventTransaction.objects.filter(id__in=ids).update(**columns)
    return ids


def names(rows) -> list[str]:
    return [row.user_id for row in rows]


# --- The age of rows --------------------------------------------------------------------------------------------


def test_a_sign_up_is_old_when_it_was_complete_before_the_time_oldest_first():
    begin("young", created_at=NOW, completed_at=NOW + DAY)
    begin("at", created_at=NOW - DAY, completed_at=NOW)
    begin("before", created_at=NOW - DAY, completed_at=NOW - MOMENT)
    begin("long-before", created_at=NOW - 2 * DAY, completed_at=NOW - MOMENT)
    begin("incomplete", created_at=NOW - 3 * DAY)
    assert names(old_signups(NOW)) == ["long-before", "before"]
    assert names(old_signups(NOW, incomplete=True)) == ["incomplete", "long-before", "before"]


def test_an_incomplete_one_is_old_when_it_began_before_the_time():
    begin("at", created_at=NOW)
    begin("before", created_at=NOW - MOMENT)
    assert names(old_signups(NOW, incomplete=True)) == ["before"]


def test_a_removed_account_keeps_its_own_sign_up_and_nothing_else():
    begin("own", created_at=NOW - DAY, completed_at=NOW - MOMENT, user_id_key="")
    begin("refused", created_at=NOW - DAY, completed_at=NOW - MOMENT, user_id_key="", owner_signup_id=uuid4())
    [removal] = begin("removal", created_at=NOW - DAY, completed_at=NOW - MOMENT, user_id_key="")
    EventTransaction.objects.filter(id=removal).update(kind=Kind.REMOVAL)
    assert set(names(old_signups(NOW))) == {"refused", "removal"}


def test_a_purge_deletes_the_oldest_up_to_its_limit_with_their_log_entries():
    ids = begin("a", "b", "c", completed_at=NOW - MOMENT)
    for age, each in enumerate(ids, start=1):
        EventTransaction.objects.filter(id=each).update(created_at=NOW - age * DAY)
    admin = User.objects.create_superuser("root-user", "root@example.org", "correct horse 9")
    rows = [*EventTransaction.objects.filter(id__in=ids), admin]
    LogEntry.objects.log_actions(admin.pk, rows, CHANGE, "Replayed")
    # An entry about something else that has the ID of a deleted sign-up.
    LogEntry.objects.filter(object_id=str(admin.pk)).update(object_id=str(ids[2]))
    assert purge_signups(NOW, 2) == 2
    assert set(SignUp.objects.values_list("id", flat=True)) >= {ids[0]}
    assert not EventTransaction.objects.filter(id__in=ids[1:]).exists()
    assert sorted(LogEntry.objects.values_list("object_id", flat=True)) == sorted([str(ids[0]), str(ids[2])])
    assert purge_signups(NOW, 2) == 1
    assert purge_signups(NOW, 2, incomplete=True) == 0


def test_a_purge_that_includes_incomplete_sign_ups_deletes_them_too():
    begin("incomplete", created_at=NOW - DAY)
    assert purge_signups(NOW, 10) == 0
    assert purge_signups(NOW, 10, incomplete=True) == 1


# --- Erasure when the ticket has expired ------------------------------------------------------------------------


def test_a_hash_is_erased_when_the_ticket_has_expired_and_not_before(settings):
    settings.TICKET_MAX_AGE = 100
    begin("at", created_at=NOW - timedelta(seconds=100))
    begin("after", created_at=NOW - timedelta(seconds=100) - MOMENT)
    begin("long-after", created_at=NOW - DAY)
    begin("erased", created_at=NOW - DAY, password="")
    assert names(expired_signups()) == ["long-after", "after"]
    begin("unusable", created_at=NOW, password="!")
    settings.TICKET_MAX_AGE = -100
    assert names(expired_signups())[-1] == "unusable"
    settings.TICKET_MAX_AGE = 100
    assert erase_expired(1) == 1
    assert SignUp.objects.get(user_id="long-after").password == ""
    assert erase_expired(10) == 1
    assert erase_expired(10) == 0
    assert SignUp.objects.get(user_id="at").password == "the hash"


def test_only_a_refused_sign_up_loses_its_name_and_address_too():
    begin("owner", created_at=NOW - DAY)
    begin("refused", created_at=NOW - DAY, owner_signup_id=uuid4())
    assert erase_expired(10) == 2
    owner, refused = SignUp.objects.get(user_id="owner"), SignUp.objects.get(user_id="refused")
    assert (owner.user_name, owner.email, owner.password) == ("owner", "owner@example.org", "")
    assert (refused.user_name, refused.email, refused.password) == ("", "", "")


@pytest.mark.parametrize(("span", "days"), [(0 * DAY, 0), (MOMENT, 1), (DAY, 1), (DAY + MOMENT, 2)])
def test_a_part_of_a_day_counts_as_a_whole_day(span, days):
    assert in_days(span) == days


# --- The checks -------------------------------------------------------------------------------------------------


def test_the_error_of_a_short_retention_says_what_is_wrong_and_what_to_set(settings):
    settings.RELAY_MAX_ATTEMPTS, settings.RELAY_MAX_PAUSE, settings.TICKET_MAX_AGE = 10, 60, 540
    settings.DEAD_LETTER_RETENTION, settings.KAFKA_RETENTION_HOURS, settings.SIGNUP_RETENTION = 10, 42, 14
    # 11 minutes of attempts, 9 of the ticket, 10 days of dead letters, and twice 42 hours plus a seventh for a segment.
    assert replay_window() == timedelta(minutes=20, days=10, hours=96)
    [error] = check_retention()
    assert error.id == "authsvc.E002"
    assert error.msg == (
        "SIGNUP_RETENTION is 14 days, but messages about a sign-up can arrive for 15 days: after a purge, a repeated "
        "sign-up would be a duplicate of itself."
    )
    assert (
        error.hint == "Set SIGNUP_RETENTION to 15 or more, or DEAD_LETTER_RETENTION or KAFKA_RETENTION_HOURS to less."
    )


def test_a_retention_exactly_as_long_as_the_window_is_too_short(settings):
    settings.RELAY_MAX_ATTEMPTS, settings.RELAY_MAX_PAUSE, settings.TICKET_MAX_AGE = 10, 0, 0
    settings.DEAD_LETTER_RETENTION, settings.KAFKA_RETENTION_HOURS = 10, 42
    assert replay_window() == 14 * DAY
    settings.SIGNUP_RETENTION = 14
    [error] = check_retention()
    assert "Set SIGNUP_RETENTION to 15 or more" in error.hint
    assert [names for names, _ in check_relay(live)][-1:] == [("RELAY_MAX_PAUSE", "RELAY_MAX_ATTEMPTS")]
    settings.SIGNUP_RETENTION = 15
    assert check_retention() == []


def test_the_error_of_short_lived_dead_letters_says_what_is_wrong_and_what_to_set(settings):
    settings.KAFKA_RETENTION_HOURS, settings.DEAD_LETTER_RETENTION, settings.SIGNUP_RETENTION = 42, 2, 365
    [error] = check_retention()
    assert error.id == "authsvc.E003"
    assert error.msg == (
        "DEAD_LETTER_RETENTION is 2 days, but Kafka keeps dead letters for 2 days: a purged one could be collected "
        "again."
    )
    assert error.hint == "Set DEAD_LETTER_RETENTION to 3 or more, or KAFKA_RETENTION_HOURS to less."
    settings.DEAD_LETTER_RETENTION = 3
    assert check_retention() == []


@pytest.mark.parametrize(
    ("first", "longest", "attempts", "seconds"),
    [
        (10, 40, 1, 10), (10, 40, 2, 30), (10, 40, 3, 70), (10, 40, 4, 110), (1, 1, 30, 30),
        # The doublings end at the sixteenth.
        (1, 10**6, 17, 2**17 - 1), (1, 65536, 19, 2**17 - 1 + 2 * 65536),
    ],
)  # fmt: skip
def test_the_attempts_last_as_long_as_the_sum_of_their_pauses(settings, first, longest, attempts, seconds):
    settings.RELAY_FIRST_PAUSE, settings.RELAY_MAX_PAUSE, settings.RELAY_MAX_ATTEMPTS = first, longest, attempts
    assert seconds_of_attempts(live) == seconds


def complaints(settings, first: float, longest: float, attempts: int) -> list[tuple[tuple[str, ...], str]]:
    settings.RELAY_FIRST_PAUSE, settings.RELAY_MAX_PAUSE, settings.RELAY_MAX_ATTEMPTS = first, longest, attempts
    return list(check_relay(live))


def test_contradictory_settings_of_the_relay_are_an_error(settings):
    settings.SIGNUP_RETENTION = 365
    assert complaints(settings, 60, 60, 10) == []
    assert complaints(settings, 61, 60, 10) == [
        (("RELAY_FIRST_PAUSE", "RELAY_MAX_PAUSE"), "The first pause is longer than the longest pause.")
    ]
    assert complaints(settings, 60, 60, 9) == [
        (
            ("RELAY_FIRST_PAUSE", "RELAY_MAX_PAUSE", "RELAY_MAX_ATTEMPTS"),
            "The attempts would be used up after 540 seconds; the minimum is 600. Set more attempts or longer pauses.",
        )
    ]


def test_settings_of_the_relay_that_contradict_the_retention_are_an_error(settings):
    settings.TICKET_MAX_AGE, settings.DEAD_LETTER_RETENTION, settings.KAFKA_RETENTION_HOURS = 0, 10, 42
    settings.SIGNUP_RETENTION = 14
    assert complaints(settings, 60, 60, 10) == [
        (
            ("RELAY_MAX_PAUSE", "RELAY_MAX_ATTEMPTS"),
            "Messages about a sign-up could still arrive for 15 days, but the sign-up is purged after 14.",
        )
    ]
