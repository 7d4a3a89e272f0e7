"""The counts of the traffic page, and the points of its charts."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authsvc.lights import Status, TransactionState, Verdict, decided_lights_in
from authsvc.operations.traffic_history import merged, percentile, point
from authsvc.signups.traffic_counts import LAST_BUCKET, bucket_of, counts_of, milliseconds_of

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SERVICES = ("auth", "chat", "customer")


def state_after(*verdicts: tuple[str, Status, float]) -> TransactionState:
    """A sign-up that began at NOW, in which these services decided so many seconds later."""
    state = TransactionState.all_pending(uuid4(), started_at=NOW, services=SERVICES)
    for service, status, seconds in verdicts:
        state = state.decided([Verdict(service, status)], at=NOW + timedelta(seconds=seconds))
    return state


def counted(*states: TransactionState, since: float, begun: int = 0) -> dict[str, int]:
    return dict(counts_of(decided_lights_in(states, since=NOW + timedelta(seconds=since)), begun=begun))


GREEN = (("auth", Status.SUCCESS, 0), ("chat", Status.SUCCESS, 1), ("customer", Status.SUCCESS, 2))


def test_a_sign_up_that_begins_counts_with_auths_own_verdict():
    states = [state_after(("auth", Status.SUCCESS, 0)), state_after(("auth", Status.FAIL, 0))]
    assert counted(*states, since=0, begun=2) == {"begun": 2, "verdict:auth:SUCCESS": 1, "verdict:auth:FAIL": 1}


def test_a_verdict_counts_where_it_was_decided_and_the_time_where_all_became_green():
    took = f"took:{bucket_of(2000)}"
    assert counted(state_after(*GREEN), since=1.5) == {"verdict:customer:SUCCESS": 1, took: 1}
    assert counted(state_after(*GREEN), state_after(*GREEN), since=0.5) == {
        "verdict:chat:SUCCESS": 2, "verdict:customer:SUCCESS": 2, took: 2,
    }  # fmt: skip


def test_a_repeated_answer_counts_nothing():
    assert counted(state_after(*GREEN), since=2.5) == {}


def test_a_sign_up_with_a_red_light_has_no_time_until_all_green():
    red = state_after(("auth", Status.SUCCESS, 0), ("chat", Status.FAIL, 1), ("customer", Status.SUCCESS, 2))
    assert counted(red, since=1.5) == {"verdict:customer:SUCCESS": 1}


@given(st.floats(min_value=5, max_value=3_000_000))
def test_a_times_error_is_at_most_an_eighth(milliseconds):
    assert milliseconds_of(bucket_of(milliseconds)) == pytest.approx(milliseconds, rel=0.125)


@pytest.mark.parametrize(("milliseconds", "bucket"), [(-3, 0), (0, 0), (5, 0), (5.1, 1), (1e12, LAST_BUCKET)])
def test_the_first_and_the_last_bucket_count_all_outliers(milliseconds, bucket):
    assert bucket_of(milliseconds) == bucket


def test_percentiles_are_of_the_bucket_in_which_so_many_are_reached():
    times = {bucket_of(10): 50, bucket_of(100): 45, bucket_of(1000): 5}
    assert [round(percentile(times, each)) for each in (50, 95, 99)] == [
        round(milliseconds_of(bucket_of(each))) for each in (10, 100, 1000)
    ]
    assert percentile({7: 1}, 50) == percentile({7: 1}, 99)


def test_counts_are_summed_and_the_lag_is_the_maximum():
    assert merged([{"begun": 2, "lag:chat": 7}, {"begun": 3, "lag:chat": 4, "lag:auth": 0}]) == {
        "begun": 5, "lag:chat": 7, "lag:auth": 0,
    }  # fmt: skip


def test_a_point_has_the_values_that_the_chart_draws():
    counts = {"begun": 3, "verdict:chat:SUCCESS": 2, "verdict:chat:FAIL": 1, "lag:chat": 9, "took:0": 1}
    assert point(60, counts) == {
        "t": 60, "begun": 3, "verdicts": {"chat": [2, 1]}, "lag": {"chat": 9}, "took": [4.5, 4.5, 4.5],
    }  # fmt: skip
    assert point(60, {}) == {"t": 60}
