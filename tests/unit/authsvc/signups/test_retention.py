"""The check, at the start of every process, that the retention settings are consistent."""

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from authsvc.signups.retention import check_retention, in_days, replay_window
from tests.servers.process import ROOT


def ids() -> list[str | None]:
    return [error.id for error in check_retention()]


def test_the_default_settings_pass_the_checks():
    assert check_retention() == []


def test_the_replay_window_is_the_sum_of_the_times_in_which_messages_can_return(settings):
    settings.RELAY_MAX_ATTEMPTS, settings.RELAY_MAX_PAUSE = 10, 60
    settings.TICKET_MAX_AGE = 540
    settings.DEAD_LETTER_RETENTION, settings.KAFKA_RETENTION_HOURS = 10, 42
    # 11 min of attempts, 9 min of the ticket, 10 days of dead letters, and twice 42 h plus a seventh for Kafka's
    # segment.
    assert replay_window() == timedelta(minutes=20, days=10, hours=96)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SIGNUP_RETENTION", 30),
        ("SIGNUP_RETENTION", 0),
        ("DEAD_LETTER_RETENTION", 89),
        ("KAFKA_RETENTION_HOURS", 24 * 27),
        ("TICKET_MAX_AGE", 3600 * 24 * 60),
        ("RELAY_MAX_PAUSE", 3600 * 24 * 2),
    ],
)
def test_a_sign_up_that_would_be_purged_too_early_is_an_error(settings, name, value):
    setattr(settings, name, value)
    assert "authsvc.E002" in ids()


def test_the_error_names_settings_that_pass_the_check(settings):
    settings.SIGNUP_RETENTION = 1
    [error] = check_retention()
    days = replay_window() // timedelta(days=1) + 1
    assert error.hint is not None
    assert f"Set SIGNUP_RETENTION to {days} or more" in error.hint
    settings.SIGNUP_RETENTION = days - 1
    assert ids() == ["authsvc.E002"]
    settings.SIGNUP_RETENTION = days
    assert ids() == []


@pytest.mark.parametrize(
    "role",
    [
        ("-c", "import signup_sync.asgi"),
        ("manage.py", "consume_events", "chat"),
        ("manage.py", "relay_signups"),
        ("manage.py", "collect_dead_letters"),
    ],
    ids=lambda role: role[-1],
)
def test_no_role_starts_with_a_retention_that_is_too_short(role: tuple[str, ...], tmp_path: Path):
    environment = os.environ | {"DATA_DIR": str(tmp_path), "SIGNUP_RETENTION": "30"}
    done = subprocess.run(
        [sys.executable, *role], cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode != 0
    assert "Set SIGNUP_RETENTION to" in done.stderr


def test_dead_letters_that_kafka_keeps_for_longer_are_an_error(settings):
    settings.DEAD_LETTER_RETENTION = 8
    assert ids() == ["authsvc.E003"]
    settings.DEAD_LETTER_RETENTION = 9
    assert ids() == []


@pytest.mark.parametrize(("hours", "days"), [(0, 0), (1, 1), (24, 1), (25, 2)])
def test_a_part_of_a_day_counts_as_a_whole_day(hours, days):
    assert in_days(timedelta(hours=hours)) == days
