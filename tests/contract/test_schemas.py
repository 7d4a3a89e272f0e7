"""The contracts in docs/: their examples fit their schemas, and so does what the code puts on the wire."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any
from uuid import UUID

import msgspec
import pytest
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from authsvc import identity
from authsvc.accounts.export import collection
from authsvc.accounts.passwords import PASSWORD_MAX, PASSWORD_MIN
from authsvc.api import sse
from authsvc.api.problems import FieldError, Problem, unavailable
from authsvc.api.signup_requests import BODY_MAX, FIELD_MAX
from authsvc.lights import Kind, Status, TransactionState, Verdict
from authsvc.models import Role, User
from authsvc.reconcile.events import (
    RECONCILE_ANSWERED,
    RECONCILE_REQUESTED,
    OwnerRange,
    ReconcileRequested,
    UserRecord,
    reconcile_requested,
)
from authsvc.reconcile.events import decode_answer as decode_reconcile_answer
from authsvc.reconcile.records import PAGE
from authsvc.signups.events import NEW_USER_ANSWERED, NEW_USER_REQUESTED, decode_answer, new_user_requested
from eventbus.messages import Incoming, Outgoing, dead_letter
from participant import events as participant_events
from participant import export, reconcile
from participant.comparison import COMPARED
from participant.events import answer, decode_request, is_asked
from participant.verdict import Holder, Judgement, VerdictCode
from signup_sync.front.page_messages import page_message, state_message
from signup_sync.front.states import read_state
from tests.contract.documents import (
    DOCS,
    check_event,
    check_event_message,
    document,
    events_of,
    look_up,
    pointer,
    validate,
    walk,
)

TRACEPARENT = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SIGNUP = UUID("0195a1c2-7b34-7e10-9d55-3f6c8a2b4e01")
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def test_every_reference_can_be_resolved():
    for file in ("openapi.yaml", "asyncapi.yaml", *(f"schemas/{path.name}" for path in (DOCS / "schemas").iterdir())):
        for _, node in walk(document(file)):
            if isinstance(node, dict) and isinstance(node.get("$ref"), str):
                assert look_up(node["$ref"], base=file)


@pytest.mark.parametrize("file", sorted(path.name for path in (DOCS / "schemas").iterdir()))
def test_every_schema_is_valid(file):
    Draft202012Validator.check_schema(document(f"schemas/{file}"))


# --- The documents' own examples ---------------------------------------------------------------------------------


def http_examples() -> Iterator[Any]:
    """Every content of openapi.yaml with each of its examples."""
    for path, node in walk(document("openapi.yaml")):
        if len(path) > 1 and path[-2] == "content":
            named = node.get("examples") or {"": {"value": node["example"]}}
            for name, example in named.items():
                if "$ref" in example:
                    example = look_up(example["$ref"], base="openapi.yaml")
                where = [part for part in path if part not in ("paths", "content", "responses", "components")]
                schema = pointer("openapi.yaml", *path, "schema")
                yield pytest.param(path[-1], schema, example["value"], id=" ".join([*where, name]))


@pytest.mark.parametrize(("content_type", "schema", "value"), list(http_examples()))
def test_examples_of_the_http_api_match_their_schemas(content_type, schema, value):
    if content_type == "text/event-stream":
        assert events_of(value), "a stream without an event shows nothing"
        for event in events_of(value):
            check_event(event)
    else:
        validate(value, schema)


def kafka_examples() -> Iterator[Any]:
    for name, message in document("asyncapi.yaml")["components"]["messages"].items():
        for example in message.get("examples", []):
            yield pytest.param(name, example, id=f"{name} {example['name']}")


@pytest.mark.parametrize(("name", "example"), list(kafka_examples()))
def test_examples_of_the_events_match_their_schemas(name, example):
    check_event_message(name, example.get("headers"), example["payload"])


# --- Messages that the code publishes ----------------------------------------------------------------------------


def check_message(name: str, message: Outgoing) -> None:
    value = json.loads(message.value)
    check_event_message(name, {key: text.decode() for key, text in message.headers}, value)
    key = value.get("userId") or value.get("exportId") or f"{value['runId']}:{value['page']}"
    assert message.key == key
    assert message.topic == document("asyncapi.yaml")["components"]["messages"][name]["name"]


def as_read(message: Outgoing, *headers: tuple[str, bytes]) -> Incoming:
    """The message as its readers get it."""
    return Incoming(
        topic=message.topic,
        partition=0,
        offset=0,
        key=message.key.encode(),
        value=message.value,
        headers=(*message.headers, *headers),
    )


def stored_user() -> User:
    return User(
        user_id="김민아", email="mina@example.org", user_name="김 민아", owner_signup_id=SIGNUP, password="hash"
    )


@pytest.mark.parametrize("services", [None, ["chat"]])
def test_auths_request_matches_its_schema_and_participants_read_it(services):
    message = new_user_requested(stored_user(), signup_id=SIGNUP, attempt=3, services=services)

    check_message("newUserRequested", message)
    request = decode_request(as_read(message))
    assert (request.signup_id, request.user_id, request.email) == (SIGNUP, "김민아", "mina@example.org")
    assert is_asked("chat", request)
    assert is_asked("customer", request) is (services is None)


@pytest.mark.parametrize("verdict", VerdictCode)
def test_a_participants_answer_matches_its_schema_and_auth_reads_it(verdict):
    held_by = (Holder(SIGNUP, 2),) if verdict.reason else ()
    question = as_read(new_user_requested(stored_user(), signup_id=SIGNUP, attempt=1))

    message = answer(question, decode_request(question), Judgement(verdict, held_by), service="chat")

    check_message("newUserAnswered", message)
    assert dict(message.headers)["traceparent"] == dict(question.headers)["traceparent"]
    read = decode_answer(as_read(message))
    assert (read.transaction_id, read.service) == (SIGNUP, "chat")
    assert read.verdict == Verdict("chat", Status(verdict.status), verdict.reason)


def asked(topic: str, name: str, **fields: Any) -> Incoming:
    """A request of auth's, made from the contract's example."""
    return Incoming(topic, 0, 0, b"", json.dumps(example_of(name) | fields).encode())


@pytest.mark.parametrize(
    ("name", "topic", "answered"),
    [
        ("changeUserRequested", participant_events.CHANGE_REQUESTED, "changeUserAnswered"),
        ("removeUserRequested", participant_events.REMOVAL_REQUESTED, "removeUserAnswered"),
    ],
)
@pytest.mark.parametrize("verdict", VerdictCode)
@pytest.mark.parametrize("changed", [{}, {"services": ["chat"], "addedLater": 1}])
def test_participants_read_a_change_and_a_removal_and_their_answer_matches_its_schema(
    name, topic, answered, verdict, changed
):
    question = asked(topic, name, **changed)
    request = decode_request(question)
    assert (str(request.transaction_id), request.version) == (
        example_of(name)["changeId"],
        example_of(name)["version"],
    )
    assert is_asked("customer", request) is not bool(changed)

    held_by = (Holder(SIGNUP, 2),) if verdict.reason else ()
    message = answer(question, request, Judgement(verdict, held_by), service="chat")

    check_message(answered, message)
    assert json.loads(message.value)["changeId"] == example_of(name)["changeId"]


def test_the_answer_to_a_removal_without_a_user_id_has_the_key_of_its_request():
    question = asked(participant_events.REMOVAL_REQUESTED, "removeUserRequested", userId="")
    message = answer(question, decode_request(question), Judgement(VerdictCode.DONE), service="chat")
    check_event_message("removeUserAnswered", {k: v.decode() for k, v in message.headers}, json.loads(message.value))
    assert message.key == example_of("removeUserRequested")["ownerSignupId"]


def test_readers_ignore_unknown_fields():
    message = new_user_requested(stored_user(), signup_id=SIGNUP, attempt=1)
    value = json.dumps(json.loads(message.value) | {"addedLater": {"a": 1}}).encode()
    question = as_read(Outgoing(message.topic, message.key, value), ("added-later", b"\xff"))
    told = answer(question, decode_request(question), Judgement(VerdictCode.DONE), service="chat")
    more = json.dumps(json.loads(told.value) | {"addedLater": []}).encode()

    assert decode_answer(as_read(Outgoing(told.topic, told.key, more))).transaction_id == SIGNUP


def test_auths_request_for_an_export_matches_its_schema_and_participants_answer_it():
    asked = collection._message(collection.ExportRequested(SIGNUP, SIGNUP, ["chat"], NOW, NOW + timedelta(days=36_500)))
    check_message("exportRequested", asked)
    held = [{"userId": "kim", "isActive": True, "version": 3, "lastAnswer": None}]
    handler = export.ExportHandler("chat", lambda owner: held if owner == SIGNUP else [])
    [told] = handler([as_read(asked, ("traceparent", TRACEPARENT))]).answers
    check_message("exportAnswered", told)
    read = collection._decode(as_read(told))
    assert (read.export_id, read.service, read.records) == (SIGNUP, "chat", held)


def test_an_expired_request_for_an_export_is_not_answered():
    asked = collection._message(collection.ExportRequested(SIGNUP, SIGNUP, ["chat"], NOW, NOW))
    assert export.ExportHandler("chat", lambda owner: [])([as_read(asked)]).answers == []


def reconcile_page(records: list[UserRecord], **more: Any) -> Outgoing:
    return reconcile_requested(
        ReconcileRequested(
            run_id=SIGNUP,
            page=2,
            heal=True,
            occurred_at=NOW,
            expires_at=NOW,
            services=["chat"],
            records=records,
            **more,
        )
    )


@pytest.mark.parametrize("more", [{}, {"owners": OwnerRange(after=SIGNUP)}, {"unowned": True}, {"gone": [SIGNUP]}])
def test_auths_page_matches_its_schema_and_participants_read_it(more):
    message = reconcile_page([UserRecord.of(stored_user())], **more)

    check_message("reconcileRequested", message)
    page = reconcile.decode_page(as_read(message))
    assert (page.run_id, page.page, page.heal, page.services) == (SIGNUP, 2, True, ["chat"])
    assert (page.records[0].user_id, page.records[0].owner_signup_id) == ("김민아", SIGNUP)
    assert (page.owners is not None, page.unowned, page.gone) == (
        "owners" in more,
        "unowned" in more,
        more.get("gone", []),
    )


def test_the_largest_page_is_well_below_kafkas_limit():
    longest = stored_user()
    longest.user_id, longest.email = "\U00020000" * identity.USER_ID_MAX, "\U00020000" * identity.EMAIL_MAX
    longest.user_name = '"' * identity.USER_NAME_MAX
    assert len(reconcile_page([UserRecord.of(longest)] * PAGE).value or b"") < 500_000


def findings() -> list[reconcile.Finding]:
    about = ("mina", "mina@example.org", SIGNUP)
    in_the_way = reconcile.ConflictingRow("mina", "a@example.org")
    return [
        reconcile.Finding(reconcile.FindingKind.MISSING, *about, healed=True),
        reconcile.Finding(reconcile.FindingKind.DIFFERENT, *about, fields=tuple(COMPARED.values())),
        reconcile.Finding(reconcile.FindingKind.CONFLICTING, *about, held_by=(in_the_way,)),
        reconcile.Finding(reconcile.FindingKind.SUPERFLUOUS, "by-hand", "by-hand@example.org"),
    ]


def test_a_participants_findings_match_their_schema_and_auth_reads_them():
    question = as_read(reconcile_page([]), ("traceparent", TRACEPARENT))
    page = reconcile.decode_page(question)
    [message] = reconcile.answers_to(question, page, findings(), service="chat")

    check_message("reconcileAnswered", message)
    assert dict(message.headers)["traceparent"] == TRACEPARENT
    read = decode_reconcile_answer(as_read(message))
    assert (read.run_id, read.page, read.service, read.more) == (SIGNUP, 2, "chat", False)
    assert msgspec.to_builtins(read.findings) == msgspec.to_builtins(findings())


@pytest.mark.parametrize("value", [b"no JSON", None, b"x" * 1_000_000, b"x" * 1_100_000])
def test_a_dead_letter_matches_its_schema(value):
    message = Incoming("user.newUser.req", 3, 17, b"\xff", value, (("ce_id", b"1"),), 1_772_366_400_000)

    letter = dead_letter(message, ValueError("no JSON" * 1000), group="chat")

    headers = {name: text.decode() for name, text in letter.headers}
    validate(headers, pointer("asyncapi.yaml", "components", "messages", "deadLetter", "headers"))
    assert headers["ce_id"] == "1"
    assert letter.topic == "user.newUser.req.chat.dlt"
    assert ("dlt-value-bytes" in headers) is (value is not None and len(value) == 1_100_000)


def test_auth_and_participants_use_the_same_topics():
    addresses = {channel["address"] for channel in document("asyncapi.yaml")["channels"].values()}
    assert {NEW_USER_REQUESTED, NEW_USER_ANSWERED, RECONCILE_REQUESTED, RECONCILE_ANSWERED} <= addresses
    assert {*participant_events.REQUESTED, *participant_events.ANSWERED} <= addresses
    assert (participant_events.NEW_USER_REQUESTED, participant_events.NEW_USER_ANSWERED) == (
        NEW_USER_REQUESTED,
        NEW_USER_ANSWERED,
    )
    assert (reconcile.RECONCILE_REQUESTED, reconcile.RECONCILE_ANSWERED) == (RECONCILE_REQUESTED, RECONCILE_ANSWERED)
    topics = (collection.EXPORT_REQUESTED, collection.EXPORT_ANSWERED)
    assert topics == (export.EXPORT_REQUESTED, export.EXPORT_ANSWERED)
    assert set(topics) <= addresses


def states() -> list[TransactionState]:
    begun = TransactionState.all_pending(SIGNUP, started_at=NOW, services=["auth", "chat", "customer"])
    saved = begun.decided([Verdict("auth", Status.SUCCESS)], at=NOW)
    verdicts = [Verdict("chat", Status.FAIL, "duplicate: email"), Verdict("customer", Status.SUCCESS)]
    return [begun, saved, saved.decided(verdicts, at=NOW)]


def states_of_changes() -> Iterator[TransactionState]:
    for state in states():
        for kind in (Kind.CHANGE, Kind.REMOVAL):
            yield msgspec.structs.replace(state, kind=kind)
    yield msgspec.structs.replace(states()[1], kind=Kind.CHANGE).superseded(at=NOW)


@pytest.mark.parametrize("state", [*states(), *states_of_changes()])
def test_a_state_matches_its_schema_as_document_and_as_event(state):
    name = "signup" if state.kind is Kind.SIGNUP else "change"
    validate(state.as_wire(with_took=True), f"schemas/{name}-state.json")
    (event,) = events_of(sse.status_event(state, seen=state.version - 1).decode())
    check_event(event)


@pytest.mark.parametrize("state", states())
@pytest.mark.parametrize("slowness", [None, "delayed", "stalled"])
def test_messages_to_the_page_match_their_schemas(state, slowness):
    read = read_state(json.dumps(state.as_wire(with_took=True)))
    for message, sent in {
        "signUpState": state_message(read.signup_id, read, slowness=slowness),
        "signUpDelayed": page_message(SIGNUP, "delayed", read, delayed=True),
        "signUpStalled": page_message(SIGNUP, "stalled", read, stalled=True),
        "signUpExpired": page_message(SIGNUP, "lapsed", read, expired=True),
    }.items():
        payload = ("components", "messages", message, "payload")
        schema = (*payload, "schema") if message == "signUpState" else payload
        validate(sent, pointer("asyncapi.yaml", *schema))


def test_the_documented_stream_is_what_auth_writes():
    signup = TransactionState.all_pending(SIGNUP, started_at=NOW, services=["auth", "chat", "customer"])
    written = sse.RETRY + sse.status_event(signup, seen=0)
    for name in signup.lights:
        seen, signup = signup.version, signup.decided([Verdict(name, Status.SUCCESS)], at=NOW)
        written += sse.status_event(signup, seen=seen)

    assert written.decode() == document("openapi.yaml")["components"]["examples"]["NewUserStream"]["value"]


def test_retry_heartbeat_and_delay_in_a_stream_are_documented():
    example = document("openapi.yaml")["components"]["examples"]["DelayedStream"]["value"]
    for text in (sse.RETRY, sse.HEARTBEAT, sse.DELAYED):
        assert text.decode() in example


@pytest.mark.parametrize(
    "problem",
    [
        unavailable("Try again."),
        Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "No.", errors=[FieldError(pointer="/a~1b", detail="There is none.")]),
    ],
)
def test_a_problem_document_matches_its_schema(problem):
    validate(problem.document(), "schemas/problem.json")


def test_the_documented_limits_are_those_of_the_code():
    contract = document("openapi.yaml")
    fields = contract["components"]["schemas"]["NewUser"]["properties"]

    assert (fields["userId"]["minLength"], fields["userId"]["maxLength"]) == (
        identity.USER_ID_MIN,
        identity.USER_ID_MAX,
    )
    assert fields["userName"]["maxLength"] == identity.USER_NAME_MAX
    assert fields["email"]["maxLength"] == identity.EMAIL_MAX
    assert (fields["userPw"]["minLength"], fields["userPw"]["maxLength"]) == (PASSWORD_MIN, PASSWORD_MAX)
    assert fields["role"]["enum"] == Role.values
    assert (
        contract["paths"]["/user"]["post"]["requestBody"]["description"]
        == f"At most {BODY_MAX // 1024} KiB, and {FIELD_MAX // 1024} KiB in one field."
    )


# --- The schemas refuse what they must ---------------------------------------------------------------------------

REQUEST = "schemas/new-user-requested.json"
ANSWER = "schemas/new-user-answered.json"
CHANGE = "schemas/change-user-requested.json"
REMOVAL = "schemas/remove-user-requested.json"
CHANGE_ANSWER = "schemas/change-answered.json"
STATE = "schemas/signup-state.json"
HOLDER = {"ownerSignupId": str(SIGNUP), "version": 1}
PAGE_ASKED = "schemas/reconcile-requested.json"
PAGE_ANSWERED = "schemas/reconcile-answered.json"


def example_of(message: str) -> dict[str, Any]:
    return document("asyncapi.yaml")["components"]["messages"][message]["examples"][0]["payload"]


def finding(**fields: Any) -> dict[str, Any]:
    return example_of("reconcileAnswered") | {"findings": [{"userId": "kim", "email": "kim@example.org"} | fields]}


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        pytest.param(REQUEST, example_of("newUserRequested") | {"userPw": "secret"}, id="a password in an event"),
        pytest.param(REQUEST, example_of("newUserRequested") | {"signupId": "1"}, id="a signupId that is no UUID"),
        pytest.param(REQUEST, example_of("newUserRequested") | {"role": "admin"}, id="an unknown role"),
        pytest.param(REQUEST, example_of("newUserRequested") | {"occurredAt": "yesterday"}, id="no time"),
        pytest.param(REQUEST, {"signupId": str(SIGNUP)}, id="fields missing"),
        pytest.param(ANSWER, example_of("newUserAnswered") | {"status": "FAIL"}, id="a refusal without a reason"),
        pytest.param(ANSWER, example_of("newUserAnswered") | {"reason": "duplicate: email"}, id="a reason to succeed"),
        pytest.param(ANSWER, example_of("newUserAnswered") | {"status": "PENDING"}, id="no verdict"),
        pytest.param(
            ANSWER,
            example_of("newUserAnswered") | {"heldBy": [{"ownerSignupId": str(SIGNUP), "version": 1}]},
            id="held though it succeeded",
        ),
        pytest.param(REQUEST, example_of("newUserRequested") | {"version": 0}, id="a version of 0"),
        pytest.param(CHANGE, example_of("changeUserRequested") | {"userPw": "x"}, id="a password in a change"),
        pytest.param(CHANGE, {"changeId": str(SIGNUP)}, id="half a change"),
        pytest.param(REMOVAL, example_of("removeUserRequested") | {"email": "a@b"}, id="an address in a removal"),
        pytest.param(CHANGE_ANSWER, {"signupId": str(SIGNUP)}, id="an answer to no change"),
        pytest.param(PAGE_ASKED, example_of("reconcileRequested") | {"records": [{"role": "x"}]}, id="half a record"),
        pytest.param(PAGE_ASKED, example_of("reconcileRequested") | {"services": []}, id="a page that asks nobody"),
        pytest.param(PAGE_ANSWERED, finding(kind="lost"), id="an unknown kind of finding"),
        pytest.param(PAGE_ANSWERED, finding(kind="missing"), id="a missing record without its owner"),
        pytest.param(PAGE_ANSWERED, finding(kind="superfluous", healed=True), id="a superfluous row that was healed"),
        pytest.param(STATE, states()[0].as_wire() | {"version": 0}, id="a version below 1"),
        pytest.param(
            STATE, states()[0].as_wire() | {"services": {"auth": {"status": "FAIL", "reason": "no"}}}, id="no reason"
        ),
        pytest.param("schemas/signup-status-event.json", states()[0].as_wire(), id="an event that says no change"),
        pytest.param(
            "schemas/problem.json", unavailable("No.").document() | {"status": 200}, id="a problem that is none"
        ),
    ],
)
def test_schemas_reject_invalid_values(schema, value):
    with pytest.raises(ValidationError):
        validate(value, schema)
