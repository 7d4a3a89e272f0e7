"""The answers to pages of a reconcile run, without a table: which pages are answered, and how findings are divided."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from eventbus.incoming_traces import traceparent_of
from eventbus.messages import HandledBatch, Incoming
from participant import reconcile
from participant.reconcile import (
    FINDINGS_MAX,
    PAGE_MAX,
    RECORDS_MAX,
    REMOVED_MAX,
    Finding,
    FindingKind,
    ReconcilePage,
    answer_pages,
    decode_page,
)

RUN = UUID(int=7)
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def now(monkeypatch) -> None:
    """The clock is stopped at NOW."""

    class Stopped(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return NOW.astimezone(tz) if tz else NOW.replace(tzinfo=None)

    monkeypatch.setattr(reconcile, "datetime", Stopped)


def page(number: int = 3, *, expires: timedelta = timedelta(minutes=1), **fields: Any) -> Incoming:
    event = {"runId": str(RUN), "page": number, "services": ["mail", "chat"], "expiresAt": (NOW + expires).isoformat()}
    return incoming(json.dumps(event | fields).encode(), offset=number)


def incoming(value: bytes | None, *, offset: int = 0) -> Incoming:
    trace = ("traceparent", f"00-{RUN.hex}-00000000000000{offset:02}-01".encode())
    return Incoming("user.reconcile.req", 0, offset, b"7:3", value, (trace,))


def found(count: int) -> list[Finding]:
    return [Finding(FindingKind.MISSING, f"u{number}", f"u{number}@example.org") for number in range(count)]


def answers(*pages: Incoming, count: int = 0) -> HandledBatch:
    return answer_pages(pages, lambda page: found(count), service="chat")


def record(owner: int, user_id: str) -> dict[str, str]:
    return {
        "ownerSignupId": str(UUID(int=owner)), "userId": user_id, "email": f"{user_id}@example.org", "userName": "Kim",
        "role": "ROLE_USER",
    }  # fmt: skip


def test_an_answer_has_the_page_and_the_run_that_it_is_about_and_its_trace():
    asked = page()
    [answer] = answers(asked, count=1).answers
    assert (answer.topic, answer.key) == ("user.reconcile.res", f"{RUN}:3")
    body = json.loads(answer.value)
    assert body == {
        "runId": str(RUN), "page": 3, "service": "chat", "more": False, "occurredAt": "2026-03-01T12:00:00Z",
        "findings": [{"kind": "missing", "userId": "u0", "email": "u0@example.org"}],
    }  # fmt: skip
    headers = dict(answer.headers)
    assert (headers["ce_type"], headers["ce_source"]) == (b"user.reconcile.res", b"/chat")
    parent = traceparent_of(asked)
    assert parent is not None
    assert headers["traceparent"].split(b"-")[1] == parent.encode().split(b"-")[1] == RUN.hex.encode()


@pytest.mark.parametrize(
    ("count", "parts"),
    [
        (0, [0]), (1, [1]), (FINDINGS_MAX - 1, [FINDINGS_MAX - 1]), (FINDINGS_MAX, [FINDINGS_MAX]),
        (FINDINGS_MAX + 1, [FINDINGS_MAX, 1]), (2 * FINDINGS_MAX, [FINDINGS_MAX, FINDINGS_MAX]),
    ],
)  # fmt: skip
def test_many_findings_take_several_messages_and_only_the_last_is_marked_as_last(count, parts):
    bodies = [json.loads(answer.value) for answer in answers(page(), count=count).answers]
    assert [len(body["findings"]) for body in bodies] == parts
    assert [body["more"] for body in bodies] == [True] * (len(parts) - 1) + [False]
    assert [finding["userId"] for body in bodies for finding in body["findings"]] == [f"u{n}" for n in range(count)]


def test_expired_pages_and_pages_for_other_services_are_skipped_and_the_rest_is_answered(caplog):
    pages = [
        page(1, services=["mail"]), page(2, expires=timedelta(seconds=-1)), page(3, expires=timedelta(0)), page(4),
    ]  # fmt: skip
    handled = answers(*pages)
    assert [json.loads(answer.value)["page"] for answer in handled.answers] == [3, 4]
    assert handled.rejected == []
    assert f"ignored page 2 of the reconcile run {RUN}: it has expired" in caplog.text


def test_an_invalid_page_is_rejected_and_the_others_are_answered():
    nothing, large, whole = incoming(None), incoming(b" " * (PAGE_MAX + 1)), page()
    allowed = incoming(whole.value + b" " * (PAGE_MAX - len(whole.value)))
    handled = answers(nothing, whole, large, allowed)
    assert [message for message, _ in handled.rejected] == [nothing, large]
    assert len(handled.answers) == 2


def test_absent_fields_of_a_page_request_nothing():
    assert decode_page(page()) == ReconcilePage(
        run_id=RUN, page=3, expires_at=NOW + timedelta(minutes=1), services=["mail", "chat"]
    )
    asked = decode_page(page())
    assert (asked.heal, asked.records, asked.owners, asked.unowned, asked.gone, asked.removed) == (
        False, [], None, False, [], [],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "is_refused"),
    [
        ({"records": [record(n, f"u{n}") for n in range(RECORDS_MAX)]}, False),
        ({"records": [record(n, f"u{n}") for n in range(RECORDS_MAX + 1)]}, True),
        ({"removed": [str(UUID(int=n)) for n in range(REMOVED_MAX)]}, False),
        ({"removed": [str(UUID(int=n)) for n in range(REMOVED_MAX + 1)]}, True),
        ({"records": [record(1, "kim"), record(1, "lee")]}, True),
        ({"records": [record(1, "kim"), record(2, "KIM") | {"email": "other@example.org"}]}, True),
        ({"records": [record(1, "kim"), record(2, "lee") | {"email": "KIM@example.org"}]}, True),
        ({"records": [record(1, "kim"), record(2, "lee")]}, False),
    ],
    ids=range(8),
)
def test_a_page_is_refused_if_it_is_too_large_or_if_two_records_would_be_one_row(fields, is_refused):
    assert len(answers(page(**fields)).rejected) == is_refused


@pytest.mark.parametrize(
    ("second", "said"),
    [
        (record(1, "lee"), "two records have the same owner_signup_id"),
        (record(2, "KIM") | {"email": "other@example.org"}, "two records have the same user_id_key"),
        (record(2, "lee") | {"email": "KIM@example.org"}, "two records have the same email"),
    ],
)
def test_a_refusal_names_the_value_that_two_records_share(second, said):
    [(_, error)] = answers(page(records=[record(1, "kim"), second])).rejected
    assert said in str(error)
