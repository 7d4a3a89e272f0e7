"""The document of a message: the fields that it contains, and those that it omits."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import msgspec
import pytest

from eventbus.deadletters.letters import Origin
from eventbus.messages import VALUE_MAX, Header, Incoming
from eventsearch.documents import MAPPING, Document, document_of

NOW = datetime(2026, 11, 27, 12, 0, tzinfo=UTC)
ID = "0195a1c2-7b34-7e10-9d55-3f6c8a2b4e01"
ORIGINS = {"user.newUser.req.chat.dlt": Origin("user.newUser.req", "chat")}


def document(
    value: object = None,
    *,
    topic: str = "user.newUser.res",
    at: datetime | None = NOW,
    headers: tuple[Header, ...] = (),
) -> Document:
    encoded = value if isinstance(value, bytes | None) else msgspec.json.encode(value)
    moment = None if at is None else int(at.timestamp() * 1000)
    return document_of(Incoming(topic, 2, 41, b"mina.k", encoded, headers, moment), ORIGINS, now=NOW)


def test_an_answer_is_found_by_its_ids_service_and_verdict() -> None:
    answer = {"signupId": ID, "userId": "mina.k", "service": "chat", "status": "FAIL", "reason": "duplicate: email"}
    made = document({**answer, "occurredAt": "2026-11-27T11:59:58.123Z"})
    assert (made.day, made.id) == ("2026.11.27", "user.newUser.res:2:41")
    assert made.source == {
        "@timestamp": NOW,
        "topic": "user.newUser.res",
        "partition": 2,
        "offset": 41,
        "kind": "signUp",
        "message": "answer",
        "readable": True,
        "signupId": UUID(ID),
        "service": "chat",
        "status": "FAIL",
        "reason": "duplicate: email",
        "occurredAt": datetime(2026, 11, 27, 11, 59, 58, 123_000, tzinfo=UTC),
    }


def test_a_request_has_no_field_of_the_person() -> None:
    person = {
        "userId": "mina.k",
        "email": "mina@example.org",
        "userName": "Mina Kim",
        "role": "ROLE_USER",
        "active": True,
    }
    asked = {"changeId": ID, "ownerSignupId": ID, "version": 3, "attempt": 2, "services": ["chat"], **person}
    source = document(asked, topic="user.changeUser.req").source
    assert (source["kind"], source["message"]) == ("change", "request")
    assert (source["version"], source["attempt"], source["services"]) == (3, 2, ["chat"])
    assert not {*person} & {*source}
    assert "mina" not in msgspec.json.encode(source).decode().lower()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("signupId", "mina@example.org"),
        ("service", "Mina Kim"),
        ("services", ["mina@example.org"]),
        ("status", "mina.k"),
        ("reason", "duplicate: mina@example.org"),
        ("attempt", 0),
        ("version", 2**31),
        ("version", "3"),
        ("occurredAt", "2026-11-27T11:59:58"),
        ("occurredAt", "yesterday"),
        ("services", ["chat"] * 51),
    ],
)
def test_an_invalid_field_is_left_out_and_the_others_stay(field: str, value: object) -> None:
    source = document({"changeId": ID, field: value}).source
    assert field not in source
    assert (source["changeId"], source["readable"]) == (UUID(ID), True)


@pytest.mark.parametrize(
    "value", [None, b"", b"no JSON", b"[1]", b'{"a": ', b"\xff", b"[" * 5000, b'{"a": "' + b"x" * VALUE_MAX + b'"}']
)
def test_a_message_that_nobody_can_read_has_a_document_too(value: bytes | None) -> None:
    made = document(value)
    assert made.id == "user.newUser.res:2:41"
    assert (made.source["readable"], made.source["offset"]) == (False, 41)


def test_a_dead_letters_document_has_the_ids_but_not_the_text_of_the_error() -> None:
    headers = (
        ("dlt-topic", b"elsewhere"),
        ("dlt-partition", b"3"),
        ("dlt-offset", b"17"),
        ("dlt-group", b"elsewhere"),
        ("dlt-error", b"runtime.errors.PermanentError"),
        ("dlt-message", b"mina@example.org is no user"),
    )
    source = document({"signupId": ID}, topic="user.newUser.req.chat.dlt", headers=headers).source
    assert (source["kind"], source["message"], source["signupId"]) == ("signUp", "deadLetter", UUID(ID))
    assert source["letter"] == {
        "topic": "user.newUser.req",
        "group": "chat",
        "partition": 3,
        "offset": 17,
        "error": "runtime.errors.PermanentError",
    }


@pytest.mark.parametrize("value", [b"", b"-1", b"x", b"9" * 30, b"99999999999999999999", "٣".encode(), None])
def test_a_handmade_letter_with_impossible_headers_has_a_document(value: bytes | None) -> None:
    headers = (("dlt-partition", value), ("dlt-offset", value), ("dlt-error", value or b"mina@example.org"))
    letter = document(b"", topic="user.newUser.req.chat.dlt", headers=headers).source["letter"]
    assert {**letter, "error": ""} == {"topic": "user.newUser.req", "group": "chat", "error": ""}
    assert "mina" not in letter.get("error", "")


def test_a_time_that_cannot_be_one_of_kafka_selects_no_day() -> None:
    assert document(at=None).day == "undated"
    assert document(at=NOW + timedelta(days=2)).day == "undated"
    assert document(at=datetime(1970, 1, 1, tzinfo=UTC)).day == "undated"
    assert document(at=NOW + timedelta(hours=2)).day == "2026.11.27"
    assert document(at=NOW - timedelta(days=400)).day == "2025.10.23"


def test_every_field_of_a_document_is_in_the_mapping() -> None:
    full = {
        "signupId": ID, "changeId": ID, "ownerSignupId": ID, "service": "chat", "services": ["chat"],
        "status": "SUCCESS", "reason": "removed", "attempt": 1, "version": 1, "occurredAt": NOW,
    }  # fmt: skip
    headers = (("dlt-partition", b"3"), ("dlt-offset", b"17"), ("dlt-error", b"x.Y"))
    source = document(full, topic="user.newUser.req.chat.dlt", headers=headers).source
    assert {*source} == {*MAPPING["properties"]}
    assert {*source["letter"]} == {*MAPPING["properties"]["letter"]["properties"]}
