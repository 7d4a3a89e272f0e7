import json
from datetime import UTC, datetime
from uuid import UUID

import msgspec
import pytest

from eventbus.messages import Incoming
from participant.events import answer, decode_request, is_asked
from participant.verdict import Judgement, VerdictCode
from runtime.errors import PermanentError

SIGNUP = "0190a000-0000-7000-8000-000000000001"
OWNER = "0190a000-0000-7000-8000-000000000002"
TRACEPARENT = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def message(value: bytes | None, *headers: tuple[str, bytes | None]) -> Incoming:
    return Incoming(topic="user.newUser.req", partition=0, offset=7, key=b"kim", value=value, headers=headers)


def event(**changes) -> bytes:
    fields = {
        "signupId": SIGNUP,
        "ownerSignupId": OWNER,
        "userId": "Kim",
        "email": "Kim@Example.org",
        "userName": "Kim",
        "role": "ROLE_USER",
        "occurredAt": "2025-01-01T00:00:00Z",
        "attempt": 1,
    }
    return json.dumps(fields | changes).encode()


def test_a_request_is_read_and_normalised():
    request = decode_request(message(event(userId="Ｋim")))
    assert (request.signup_id, request.owner_signup_id) == (UUID(SIGNUP), UUID(OWNER))
    assert (request.user_id, request.user_id_key, request.email) == ("Kim", "kim", "kim@example.org")
    assert (request.user_name, request.role) == ("Kim", "ROLE_USER")


def test_unknown_fields_are_ignored():
    assert decode_request(message(event(colour="green", userIdKey="other"))).user_id_key == "kim"


@pytest.mark.parametrize(
    ("changes", "asked"),
    [
        ({}, True),
        ({"services": None}, True),
        ({"services": ["auth", "chat"]}, True),
        ({"services": ["customer"]}, False),
        ({"services": []}, False),
    ],
)
def test_a_participant_is_asked_unless_the_request_names_only_others(changes, asked):
    assert is_asked("chat", decode_request(message(event(**changes)))) is asked


@pytest.mark.parametrize(
    "changes",
    [
        {"userId": "가나다" * 10},
        {"userId": "😀"},
        {"userId": "가" * 64, "email": "e" * 242 + "@example.org", "userName": "가" * 150},
    ],
    ids=["hangul", "emoji", "longest"],
)
def test_every_text_that_fits_the_row_is_accepted(changes):
    assert decode_request(message(event(**changes))).user_id == changes["userId"]


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"garbage",
        b"[]",
        b"{}",
        b"\xff\xfe",
        event(signupId="no uuid"),
        event(ownerSignupId=None),
        event(userId=7),
        event(userId=""),
        event(userId="a" * 65),
        # One character that NFKC expands to 18.
        event(userId="ﷺ" * 4),
        event(userId="a\0b"),
        event(email="a\0@example.org"),
        event(email=" "),
        event(email="e" * 243 + "@example.org"),
        # Lower-casing turns one character into two.
        event(email="İ" * 200 + "@example.org"),
        event(userName="a\0b"),
        event(userName="n" * 151),
        event(role="a\0b"),
        event(role="R" * 33),
        event(services="chat"),
        event(userName="half a pair: \ud800"),
        event(userName="x").replace(b'"x"', b'"half a pair: \xed\xa0\x80"'),
    ],
)
def test_texts_that_do_not_fit_the_row_are_refused(value):
    with pytest.raises((msgspec.DecodeError, UnicodeError)):
        decode_request(message(value))


def test_a_message_without_a_value_is_refused():
    with pytest.raises(PermanentError):
        decode_request(message(None))


def answered(verdict: VerdictCode, *headers: tuple[str, bytes | None]):
    incoming = message(event(), *headers)
    return answer(incoming, decode_request(incoming), Judgement(verdict), service="chat")


def test_success_has_no_reason():
    before = datetime.now(UTC)
    outgoing = answered(VerdictCode.DONE)
    body = json.loads(outgoing.value)
    occurred_at = body.pop("occurredAt")
    assert body == {"signupId": SIGNUP, "userId": "Kim", "service": "chat", "status": "SUCCESS"}
    assert occurred_at.endswith("Z")
    assert before <= datetime.fromisoformat(occurred_at) <= datetime.now(UTC)
    assert (outgoing.topic, outgoing.key) == ("user.newUser.res", "Kim")


def test_failure_names_its_reason():
    body = json.loads(answered(VerdictCode.DUPLICATE_EMAIL).value)
    assert (body["status"], body["reason"]) == ("FAIL", "duplicate: email")


def test_an_answer_is_a_cloud_event_in_the_trace_of_its_request():
    headers = dict(answered(VerdictCode.DONE, ("traceparent", TRACEPARENT)).headers)
    assert headers["traceparent"] == TRACEPARENT
    assert headers["ce_type"] == b"user.newUser.res"
    assert headers["ce_source"] == b"/chat"


@pytest.mark.parametrize("trace", [None, b"", b"\xff", b"00-4bf9-00f0-01", TRACEPARENT + b"\n"])
def test_an_invalid_trace_is_not_passed_on(trace):
    assert "traceparent" not in dict(answered(VerdictCode.DONE, ("traceparent", trace)).headers)
