"""A process follows the row of live settings: the interval, the order of polls, and the log."""

import logging
import threading

import pytest
from django.db import OperationalError

from livesettings import following
from livesettings.following import CHECK_INTERVAL, FIRST_CHECK_WITHIN, LAST_CHECK_WITHIN, Follower, check_once
from livesettings.models import Overrides
from livesettings.values import live, take
from tests.waiting import PATIENCE


@pytest.fixture(autouse=True)
def row(monkeypatch):
    """The values in the row, which may be replaced by an error."""
    values: dict[str, object] = {}

    def read() -> dict[str, object]:
        if error := values.get("error"):
            raise error
        return values

    monkeypatch.setattr(Overrides, "read", read)
    monkeypatch.setattr(following, "close_old_connections", lambda: None)
    yield values
    take({})


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == following.__name__]


def test_one_poll_applies_the_row(row):
    row["SIGNUP_DEADLINE"] = 12
    check_once()
    assert live.SIGNUP_DEADLINE == 12


def test_an_outage_is_logged_once_with_its_reason_on_one_line_and_its_end_once(row, caplog):
    caplog.set_level(logging.INFO)
    follower = Follower()
    follower.check()
    assert said(caplog) == []
    row["error"] = OperationalError("gone\n  away")
    follower.check()
    row["error"] = OperationalError("another reason")
    follower.check()
    outage = "the live settings keep their last values: the database is unavailable: gone away"
    assert said(caplog) == [outage]
    del row["error"]
    follower.check()
    follower.check()
    assert said(caplog) == [outage, "the live settings are up to date again"]


def test_an_invalid_row_is_logged_as_invalid(row, caplog):
    row["SIGNUP_DEADLINE"] = -1
    Follower().check()
    [line] = said(caplog)
    assert line.startswith("the live settings keep their last values: their row is invalid: Expected `float` >= 1")


def test_a_value_of_another_form_is_an_invalid_row(monkeypatch, caplog):
    monkeypatch.setattr(Overrides, "read", lambda: ["SIGNUP_OPEN"])
    Follower().check()
    assert "their row is invalid: Expected `object`" in said(caplog)[0]


def test_a_follower_starts_healthy_with_a_named_daemon_thread():
    follower = Follower()
    assert follower._problem == ""
    assert (follower._thread.name, follower._thread.daemon) == ("live-settings", True)


def test_a_start_waits_for_the_first_poll_and_a_close_for_the_last(monkeypatch):
    follower = Follower()
    waited = []
    monkeypatch.setattr(follower._has_checked, "wait", waited.append)
    monkeypatch.setattr(follower._thread, "start", lambda: waited.append("started"))
    follower.start()
    assert waited == ["started", FIRST_CHECK_WITHIN]
    monkeypatch.setattr(follower._thread, "is_alive", lambda: True)
    monkeypatch.setattr(follower._thread, "join", waited.append)
    follower.close()
    assert waited[2:] == [LAST_CHECK_WITHIN]
    assert follower._stop.is_set()


def test_a_started_follower_applies_the_row(row):
    row["SIGNUP_DEADLINE"] = 12
    follower = Follower()
    follower.start()
    follower.close()
    assert live.SIGNUP_DEADLINE == 12


def test_a_follower_that_was_never_started_is_closed_without_waiting():
    Follower().close()


def test_a_follower_polls_again_after_each_pause_whatever_a_poll_raises(monkeypatch, caplog):
    follower = Follower()
    checks, pauses, closed = [], [], []

    def read() -> None:
        checks.append(follower._has_checked.is_set())
        raise ValueError("a bug")

    def wait(pause: float) -> None:
        pauses.append(pause)
        if len(pauses) == 3:
            follower._stop.set()

    monkeypatch.setattr(Overrides, "read", read)
    monkeypatch.setattr(follower._stop, "wait", wait)
    monkeypatch.setattr(following, "close_old_connections", lambda: closed.append(1))
    follower._run()
    assert checks == [False, True, True]
    assert pauses == [CHECK_INTERVAL] * 3
    assert len(closed) == 3
    assert caplog.text.count("ValueError: a bug") == 3


def test_a_stopped_follower_does_not_poll(monkeypatch):
    follower = Follower()
    monkeypatch.setattr(Overrides, "read", lambda: pytest.fail("it checked"))
    follower._stop.set()
    follower._run()


def test_polls_wait_for_each_other(row):
    row["RELAY_RATE"] = 7
    other = threading.Thread(target=Follower().check)
    with following._one_at_a_time:
        other.start()
        other.join(0.05)
        assert other.is_alive()
        assert live.RELAY_RATE != 7
    other.join(PATIENCE)
    assert live.RELAY_RATE == 7


def test_a_bug_in_a_poll_is_not_reported_as_an_outage(row):
    row["error"] = ValueError("a bug")
    with pytest.raises(ValueError, match="a bug"):
        Follower().check()
