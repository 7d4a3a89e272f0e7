"""One trace: in headers and in log lines."""

import logging
from uuid import UUID, uuid4

import pytest

from eventbus.incoming_traces import trace_of, traces_of
from eventbus.messages import Incoming
from runtime.tracing import IDS_OF_A_LINE, log_traces, trace_id_in, traceparent

TRACE = UUID("0af76519-16cd-43dd-8448-eb211c80319c")
logger = logging.getLogger("a.service")


def message(*headers: tuple[str, bytes | None]) -> Incoming:
    return Incoming(topic="asked", partition=0, offset=0, key=None, value=None, headers=headers)


def test_each_step_of_a_trace_has_an_id_of_its_own():
    one, other = traceparent(TRACE), traceparent(TRACE)
    assert one != other
    assert {trace_id_in(each.encode()) for each in (one, other)} == {TRACE.hex}


@pytest.mark.parametrize(
    "header", [b"", b"00-1-2-01", b"\x80not a trace", b"00-" + b"G" * 32 + b"-" + b"0" * 16 + b"-01"]
)
def test_an_invalid_trace_is_ignored(header):
    assert trace_id_in(header) is None
    assert trace_of(message(("traceparent", header))) == {}


def test_a_line_about_messages_has_the_traces_of_those_that_have_one():
    traced = message(("traceparent", traceparent(TRACE).encode()))
    assert trace_of(traced) == {"trace_id": TRACE.hex}
    assert traces_of([traced, message(("traceparent", None)), traced]) == {"trace_id": [TRACE.hex] * 2}
    assert traces_of([message()]) == {}
    assert len(traces_of([traced] * (IDS_OF_A_LINE + 1))["trace_id"]) == IDS_OF_A_LINE


@pytest.mark.parametrize(("count", "lines"), [(0, []), (1, [1]), (2, [2]), (250, [100, 100, 50])])
def test_a_step_of_many_sign_ups_is_logged_in_few_lines_with_all_ids(caplog, count, lines):
    ids = [uuid4() for _ in range(count)]
    with caplog.at_level(logging.INFO, "a.service"):
        log_traces(logger, "%d taken", ids)
    assert [record.getMessage() for record in caplog.records] == [f"{number} taken" for number in lines]
    said = [record.trace_id for record in caplog.records]
    assert [each for ids in said for each in ([ids] if isinstance(ids, str) else ids)] == [each.hex for each in ids]
