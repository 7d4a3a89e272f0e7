from datetime import UTC, datetime, timedelta
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from authsvc.lights import (
    FAILURES_MAX,
    REMOVED_REASON,
    Kind,
    Status,
    TransactionState,
    Verdict,
    decided_lights_in,
    lights_as_document,
    lights_from_document,
    participants,
)
from authsvc.models import UnconfirmedSignUp

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
BEFORE, AFTER = NOW - timedelta(microseconds=1), NOW + timedelta(microseconds=1)
SERVICES = ["auth", "chat", "customer"]


def begun() -> TransactionState:
    return TransactionState.all_pending(UUID(int=1), started_at=NOW, services=SERVICES)


def decided(*verdicts: Verdict) -> TransactionState:
    return begun().decided(verdicts, at=NOW)


def test_a_sign_up_begins_with_every_light_pending_at_version_1():
    state = begun()
    assert state.version == 1
    assert state.pending == SERVICES
    assert not state.is_complete


def test_a_verdict_raises_the_version_and_turns_only_its_light():
    state = decided(Verdict("auth", Status.SUCCESS))
    assert state.version == 2
    assert state.pending == ["chat", "customer"]
    assert state.changed_since(1) == ["auth"]


def test_a_decided_light_does_not_move():
    state = decided(Verdict("chat", Status.SUCCESS))
    assert state.decided([Verdict("chat", Status.FAIL, "duplicate: userId")], at=NOW) is state


def test_the_first_of_two_verdicts_in_one_batch_counts():
    state = decided(Verdict("chat", Status.SUCCESS), Verdict("chat", Status.FAIL, "duplicate: userId"))
    assert state.lights["chat"].status is Status.SUCCESS


def test_after_a_refusal_by_auth_every_red_light_has_auths_reason():
    state = decided(Verdict("auth", Status.FAIL, "duplicate: email")).decided(
        [Verdict("chat", Status.FAIL, "duplicate: userId"), Verdict("customer", Status.SUCCESS)], at=NOW
    )
    assert state.lights["chat"].reason == "duplicate: email"
    assert state.lights["customer"].reason is None


def test_after_auths_success_a_red_light_has_the_participants_reason():
    state = decided(Verdict("auth", Status.SUCCESS)).decided([Verdict("chat", Status.FAIL, "duplicate: email")], at=NOW)
    assert state.lights["chat"].reason == "duplicate: email"


def test_the_wire_format_has_status_reason_and_duration_of_a_decided_light():
    state = decided(Verdict("auth", Status.SUCCESS), Verdict("chat", Status.FAIL, "duplicate: userId"))
    assert "took" not in state.as_wire()
    assert state.as_wire(with_took=True) == {
        "signupId": "00000000-0000-0000-0000-000000000001",
        "version": 2,
        "complete": False,
        "services": {
            "auth": {"status": "SUCCESS"},
            "chat": {"status": "FAIL", "reason": "duplicate: userId"},
            "customer": {"status": "PENDING"},
        },
        "took": {"auth": 0, "chat": 0},
    }


@pytest.mark.parametrize("kind", [Kind.CHANGE, Kind.REMOVAL])
def test_the_wire_format_of_a_change_or_removal_has_its_own_id_and_kind(kind):
    state = TransactionState.all_pending(UUID(int=1), started_at=NOW, services=["chat"], kind=kind)
    assert state.as_wire() == {
        "changeId": "00000000-0000-0000-0000-000000000001",
        "kind": kind.value,
        "version": 1,
        "complete": False,
        "services": {"chat": {"status": "PENDING"}},
    }


def test_a_removal_refuses_only_what_is_pending():
    green = decided(Verdict("auth", Status.SUCCESS))
    state = green.superseded(at=AFTER)
    assert (state.is_complete, state.version, state.lights["auth"]) == (True, 3, green.lights["auth"])
    for service in ("chat", "customer"):
        light = state.lights[service]
        assert (light.status, light.reason, light.decided_at) == (Status.FAIL, REMOVED_REASON, AFTER)
    assert state.superseded(at=AFTER) is state


def test_the_wire_format_reports_stalled_until_the_sign_up_is_complete():
    state = msgspec.structs.replace(decided(Verdict("auth", Status.SUCCESS)), is_stalled=True)
    assert state.as_wire()["stalled"] is True
    half = state.decided([Verdict("chat", Status.SUCCESS)], at=NOW + timedelta(milliseconds=1234))
    assert (half.as_wire()["stalled"], half.as_wire(with_took=True)["took"]) == (True, {"auth": 0, "chat": 1234})
    assert "stalled" not in half.decided([Verdict("customer", Status.SUCCESS)], at=NOW).as_wire()


def test_a_verdict_for_a_service_that_is_not_asked_is_an_error():
    with pytest.raises(KeyError):
        decided(Verdict("billing", Status.SUCCESS))


verdicts = st.lists(
    st.lists(
        st.builds(Verdict, st.sampled_from(SERVICES), st.sampled_from([Status.SUCCESS, Status.FAIL]), st.none()),
        min_size=1,
        max_size=4,
    ),
    max_size=6,
)


@given(verdicts)
def test_versions_only_rise_lights_only_turn_once_and_no_change_is_missed(batches):
    state, reader_version = begun(), 0
    reader: dict[str, Status] = {}
    for batch in batches:
        after = state.decided(batch, at=NOW)
        assert after.version == state.version + (after is not state)
        for service, light in state.lights.items():
            if light.status is not Status.PENDING:
                assert after.lights[service] == light
        state = after
        for service in state.changed_since(reader_version):
            reader[service] = state.lights[service].status
        reader_version = state.version
        assert reader == {service: light.status for service, light in state.lights.items()}


@given(verdicts)
def test_lights_survive_a_round_trip_through_the_column_and_redis(batches):
    state = begun()
    for batch in batches:
        state = state.decided(batch, at=NOW)
    assert lights_from_document(lights_as_document(state.lights)) == state.lights
    assert msgspec.json.decode(msgspec.json.encode(state), type=TransactionState) == state


def test_lights_are_in_the_order_of_the_setting_whatever_order_the_database_returns(settings):
    settings.SIGNUP_SERVICES = ["auth", "chat", "customer", "crm"]
    # PostgreSQL orders the keys of a document by their length. The last two services have been removed.
    stored = {name: {} for name in ("crm", "auth", "chat", "wiki", "billing", "customer")}
    assert list(lights_from_document(stored)) == ["auth", "chat", "customer", "crm", "billing", "wiki"]


def test_the_failures_are_a_line_for_each_red_light_equal_for_equal_ones_and_short_enough_for_an_index():
    assert decided(Verdict("chat", Status.SUCCESS)).failures == ""
    red = decided(Verdict("customer", Status.FAIL), Verdict("chat", Status.FAIL, "duplicate:\n userId"))
    assert red.failures == "chat: duplicate: userId\ncustomer"
    assert len(decided(Verdict("chat", Status.FAIL, "말" * 5000)).failures) == FAILURES_MAX


def test_an_unconfirmed_sign_up_has_every_light_pending_and_is_marked_as_such(settings):
    settings.SIGNUP_SERVICES = SERVICES
    state = UnconfirmedSignUp(id=UUID(int=1), created_at=NOW).state
    assert state == msgspec.structs.replace(begun(), is_unconfirmed=True)
    assert state.as_wire()["awaiting"] == "confirmation"
    assert "awaiting" not in begun().as_wire()


def test_an_added_service_gets_a_pending_light_and_a_new_version():
    complete = decided(*(Verdict(service, Status.SUCCESS) for service in SERVICES))
    state = complete.asking("billing")
    assert (complete.is_complete, complete.version) == (True, 2)
    assert (state.is_complete, state.version, state.pending) == (False, 3, ["billing"])
    assert state.changed_since(2) == ["billing"]
    assert state.changed_since(3) == []
    assert {name: state.lights[name] for name in SERVICES} == complete.lights


def test_a_light_keeps_the_time_of_its_verdict():
    later = NOW + timedelta(seconds=1)
    state = decided(Verdict("auth", Status.SUCCESS)).decided([Verdict("chat", Status.FAIL)], at=later)
    assert [state.lights[name].decided_at for name in SERVICES] == [NOW, later, None]


def test_a_clock_that_was_put_back_makes_no_light_take_less_than_nothing():
    state = begun().decided([Verdict("auth", Status.SUCCESS)], at=NOW - timedelta(hours=1))
    assert state.as_wire(with_took=True)["took"] == {"auth": 0}


def test_without_a_decided_light_no_durations_are_sent():
    assert "took" not in begun().as_wire(with_took=True)


def test_a_reason_is_sent_only_if_the_setting_shows_reasons(settings):
    state = decided(Verdict("chat", Status.FAIL, "duplicate: userId"))
    assert state.as_wire()["services"]["chat"] == {"status": "FAIL", "reason": "duplicate: userId"}
    settings.SIGNUP_REASONS = False
    assert state.as_wire()["services"]["chat"] == {"status": "FAIL"}


# --- What one transaction decided -------------------------------------------------------------------------------


def test_without_a_time_all_decided_lights_count():
    half = decided(Verdict("auth", Status.SUCCESS), Verdict("chat", Status.FAIL))
    whole = half.decided([Verdict("customer", Status.SUCCESS)], at=AFTER)
    other = msgspec.structs.replace(half, transaction_id=UUID(int=2), kind=Kind.CHANGE)
    decisions = decided_lights_in([begun(), other, whole])
    assert decisions.lights == {
        ("auth", "SUCCESS", "change"): [UUID(int=2)],
        ("chat", "FAIL", "change"): [UUID(int=2)],
        ("auth", "SUCCESS", "signUp"): [UUID(int=1)],
        ("chat", "FAIL", "signUp"): [UUID(int=1)],
        ("customer", "SUCCESS", "signUp"): [UUID(int=1)],
    }
    assert decisions.complete == [(whole, AFTER)]


def test_of_a_sign_up_that_was_decided_in_steps_the_last_step_counts():
    whole = decided(Verdict("auth", Status.SUCCESS)).decided(
        [Verdict("chat", Status.FAIL), Verdict("customer", Status.SUCCESS)], at=AFTER
    )
    decisions = decided_lights_in([whole], since=AFTER)
    assert set(decisions.lights) == {("chat", "FAIL", "signUp"), ("customer", "SUCCESS", "signUp")}
    assert decisions.complete == [(whole, AFTER)]


def test_lights_decided_at_or_after_the_time_count_and_earlier_ones_do_not():
    state = decided(Verdict("auth", Status.SUCCESS))
    assert decided_lights_in([state], since=NOW).lights == {("auth", "SUCCESS", "signUp"): [UUID(int=1)]}
    assert decided_lights_in([state], since=AFTER).lights == {}
    whole = decided(*(Verdict(service, Status.SUCCESS) for service in SERVICES))
    assert decided_lights_in([whole], since=AFTER).complete == []


def test_a_state_without_counted_lights_does_not_hide_others():
    states = [begun(), decided(Verdict("auth", Status.SUCCESS))]
    assert decided_lights_in(states, since=NOW).lights == {("auth", "SUCCESS", "signUp"): [UUID(int=1)]}


def test_the_participants_are_all_services_but_auth_in_their_order(settings):
    settings.SIGNUP_SERVICES = ["chat", "auth", "customer"]
    assert participants() == ["chat", "customer"]
