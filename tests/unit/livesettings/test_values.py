"""The live settings of one process: where their values come from, and what is refused."""

import msgspec
import pytest
from django.conf import settings as django_settings

from livesettings import values
from livesettings.values import (
    NAMES,
    broken_rules,
    call_on_change,
    checked,
    choices_of,
    forget,
    live,
    meta_of,
    rule,
    take,
    type_of,
)


@pytest.fixture(autouse=True)
def as_before():
    yield
    take({})


def test_without_overrides_they_are_those_of_the_environment():
    assert {name: getattr(live, name) for name in NAMES} == {name: getattr(django_settings, name) for name in NAMES}


def test_an_override_applies_until_it_is_removed():
    take({"SIGNUP_DEADLINE": 7.5, "SIGNUP_OPEN": False})
    assert (live.SIGNUP_DEADLINE, live.SIGNUP_OPEN) == (7.5, False)
    take({"SIGNUP_OPEN": False})
    assert (live.SIGNUP_DEADLINE, live.SIGNUP_OPEN) == (django_settings.SIGNUP_DEADLINE, False)


def test_listeners_are_notified_after_changes_only():
    seen = []

    def listener():
        seen.append(live.RELAY_RATE)

    call_on_change(listener)
    take({"RELAY_RATE": 3})
    take({"RELAY_RATE": 3})
    forget(listener)
    take({"RELAY_RATE": 4})
    assert seen == [3]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SIGNUP_DEADLINE", 0.5),
        ("SIGNUP_DEADLINE", 601),
        ("STREAM_HEARTBEAT", 0),
        ("RATE_LIMIT_ADDRESS", -1),
        ("RELAY_MAX_ATTEMPTS", 1.5),
        ("RELAY_RATE", "many"),
        ("SIGNUP_OPEN", "no"),
    ],
)
def test_a_value_out_of_its_range_or_of_another_type_is_an_error(name, value):
    with pytest.raises(msgspec.ValidationError):
        checked({name: value})


def test_settings_of_another_version_are_left_out():
    assert checked({"SIGNUP_DEADLINE": 9, "SIGNUP_COLOUR": "green"}) == {"SIGNUP_DEADLINE": 9.0}


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"RELAY_FIRST_PAUSE": 21.0}, "The first pause is longer"),
        ({"RELAY_MAX_ATTEMPTS": 31}, "used up after 595 seconds"),
        ({"RELAY_FIRST_PAUSE": 1.0, "RELAY_MAX_PAUSE": 1.0}, "used up after 33 seconds"),
        ({"RELAY_MAX_ATTEMPTS": 100_000, "RELAY_MAX_PAUSE": 3600.0}, "the sign-up is purged after 90"),
    ],
)
def test_contradictory_values_are_named(overrides, said):
    [problem] = broken_rules(overrides)
    assert said in problem


def test_consistent_values_break_no_rule():
    assert broken_rules({"RELAY_MAX_ATTEMPTS": 32, "RELAY_MAX_PAUSE": 21.0, "SIGNUP_OPEN": False}) == []


def test_a_rule_broken_by_the_environment_alone_is_not_reported_to_an_administrator(settings):
    settings.RELAY_MAX_ATTEMPTS = 2
    assert broken_rules({"SIGNUP_OPEN": False}) == []
    assert broken_rules({"RELAY_MAX_PAUSE": 30.0}) != []


def test_a_setting_has_its_range_its_type_and_its_named_values():
    assert (meta_of("SIGNUP_DEADLINE").ge, meta_of("SIGNUP_DEADLINE").le) == (1, 600)
    assert type_of("SIGNUP_DEADLINE") is float
    assert choices_of("SIGNUP_CONFIRM") == {"none": "None", "mail": "By email"}
    assert choices_of("SIGNUP_OPEN") == {}


def test_a_change_is_logged_with_the_value_before_it(caplog):
    caplog.set_level("INFO")
    take({"RELAY_RATE": 3})
    take({"RELAY_RATE": 4})
    assert "RELAY_RATE is now 4, was 3" in caplog.text


def test_a_listener_that_unsubscribes_during_its_call_hides_no_other():
    seen = []

    def first():
        seen.append("first")
        forget(first)

    def second():
        seen.append("second")

    call_on_change(first)
    call_on_change(second)
    take({"RELAY_RATE": 3})
    take({})
    forget(second)
    assert seen == ["first", "second", "second"]


def test_another_default_applies_unless_it_is_overridden(settings):
    take({"RELAY_RATE": 3})
    settings.RELAY_RATE = 5
    settings.SIGNUP_DEADLINE = 9
    settings.DEBUG = False
    assert (live.RELAY_RATE, live.SIGNUP_DEADLINE) == (3, 9)
    take({})
    assert live.RELAY_RATE == 5


def test_a_registered_rule_is_checked(monkeypatch):
    monkeypatch.setattr(values, "_rules", [])

    @rule
    def never(checked):
        yield ("RELAY_RATE",), f"not {checked.RELAY_RATE}"
        yield ("SIGNUP_OPEN",), "not asked"

    assert [text for _, text in never(live)][1] == "not asked"
    assert broken_rules({"RELAY_RATE": 3}) == ["not 3"]


def test_overrides_are_converted_to_the_types_of_their_settings():
    converted = checked({"SIGNUP_DEADLINE": 9, "SIGNUP_OPEN": True, "SIGNUP_CONFIRM": "mail"})
    assert converted == {"SIGNUP_OPEN": True, "SIGNUP_CONFIRM": "mail", "SIGNUP_DEADLINE": 9.0}
    assert isinstance(converted["SIGNUP_DEADLINE"], float)
