"""Security events are lines with a stable name and short members."""

import json
import logging

from runtime import logs
from runtime.security_log import MEMBER_MAX, log_security_event


def lines_of(caplog):
    form = logs.formatter("json")
    return [json.loads(form.format(record)) for record in caplog.records]


def test_the_name_is_the_event_and_the_members_are_in_the_line(caplog):
    with caplog.at_level(logging.INFO, "security"):
        log_security_event("login_failed", actor="mina.k", address="192.0.2.7", detail="wrong password")

    (line,) = lines_of(caplog)
    assert (line["event"], line["logger"]) == ("login_failed", "security")
    assert (line["actor"], line["address"], line["detail"]) == ("mina.k", "192.0.2.7", "wrong password")
    assert "subject" not in line


def test_long_input_is_cut(caplog):
    with caplog.at_level(logging.INFO, "security"):
        log_security_event("login_failed", actor="a" * 100_000)

    (line,) = lines_of(caplog)
    assert line["actor"] == "a" * MEMBER_MAX


def test_line_breaks_and_control_characters_in_input_are_escaped(caplog):
    with caplog.at_level(logging.INFO, "security"):
        log_security_event("login_failed", actor="mina\nlogin \x1b[2K actor=root \ud55c")

    (record,) = caplog.records
    said = logs.formatter("console").format(record)
    assert "\n" not in said
    assert "\x1b[2K" not in said
    assert "\ud55c" in said
