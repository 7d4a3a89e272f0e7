import json
from contextlib import suppress
from http import HTTPStatus

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from authsvc.api.header_values import asks_for_stream, media_type, preferences
from authsvc.api.problems import Problem
from authsvc.api.signup_requests import check_password_strength, read_idempotency_key, read_json, read_signup

GOOD = {"userId": "kim", "userPw": "correct horse 9", "email": "Kim@example.com", "userName": "Kim"}


def problem_of(document) -> Problem:
    with pytest.raises(Problem) as caught:
        read_signup(document)
    return caught.value


def pointers(problem: Problem) -> list[str]:
    return [error.pointer for error in problem.errors]


def test_fields_are_normalised():
    request = read_signup(GOOD | {"userId": "Ｋim", "userName": "  Kim "})
    assert (request.user_id, request.email, request.user_name, request.role) == (
        "Kim", "kim@example.com", "Kim", "ROLE_USER",
    )  # fmt: skip


def test_the_repr_of_a_request_has_no_password():
    assert "correct horse" not in repr(read_signup(GOOD))


@pytest.mark.parametrize("content_type", ["", "text/plain", "application/x-www-form-urlencoded", "application/jsonx"])
def test_a_content_type_other_than_json_is_415(content_type):
    with pytest.raises(Problem) as caught:
        read_json(b"{}", content_type)
    assert caught.value.status is HTTPStatus.UNSUPPORTED_MEDIA_TYPE


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"[]", b'"x"', b"null", b"[" * 60_000])
def test_a_body_that_is_no_json_object_is_400(body):
    with pytest.raises(Problem) as caught:
        read_json(body, "application/json; charset=utf-8")
    assert caught.value.status is HTTPStatus.BAD_REQUEST


@pytest.mark.parametrize("missing", GOOD)
def test_a_missing_field_is_named(missing):
    problem = problem_of({name: value for name, value in GOOD.items() if name != missing})
    assert problem.status is HTTPStatus.UNPROCESSABLE_ENTITY
    assert pointers(problem) == [f"/{missing}"]


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize("value", [None, 1, True, [], {}, "a\x00b", "a\ud800"])
def test_a_field_of_the_wrong_type_or_with_unstorable_text_is_named(name, value):
    assert pointers(problem_of(GOOD | {name: value})) == [f"/{name}"]


def test_an_unknown_field_is_named_with_its_pointer_escaped():
    assert pointers(problem_of(GOOD | {"a/b~c": 1})) == ["/a~1b~0c"]


def test_an_unknown_field_with_a_lone_surrogate_is_named_with_a_replacement_character():
    [error] = problem_of(GOOD | {"\ud800": 1}).errors
    assert json.loads(msgspec.json.encode(error)) == {"pointer": "/?", "detail": "Unknown field."}


def test_of_thousands_of_unknown_fields_some_are_named():
    assert 1 < len(problem_of(GOOD | {f"field-{n}": n for n in range(5000)}).errors) < 50


def test_every_wrong_field_is_named_at_once():
    assert set(pointers(problem_of({"userId": "!", "email": "x", "role": "ROOT", "extra": 1}))) == {
        "/userId", "/email", "/userName", "/userPw", "/role", "/extra",
    }  # fmt: skip


@pytest.mark.parametrize("password", ["short", "12345678901", "password123", "kimkimkim", "kim@example.com"])
def test_a_weak_password_is_refused_by_djangos_validators(password):
    request = read_signup(GOOD | {"userId": "kimkimkim", "userPw": password})
    with pytest.raises(Problem) as caught:
        check_password_strength(request)
    assert pointers(caught.value) == ["/userPw"] * len(caught.value.errors)


def test_an_idempotency_key_must_be_a_uuid():
    with pytest.raises(Problem) as caught:
        read_idempotency_key("not-a-uuid")
    assert caught.value.status is HTTPStatus.BAD_REQUEST
    assert read_idempotency_key(None) != read_idempotency_key(None)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(st.dictionaries(st.sampled_from([*GOOD, "role"]) | st.text(), json_values))
def test_any_body_is_read_or_refused_with_a_problem(document):
    text = json.dumps(document).encode()
    with suppress(Problem):
        read_signup(read_json(text, "application/json"))


@pytest.mark.parametrize(
    ("accept", "asks"),
    [
        ("Text/Event-Stream", True),
        ("application/json, text/event-stream", True),
        ("application/json;q=0.5, text/event-stream", True),
        ('text/event-stream;x="a,b;q=0"', True),
        ("text/event-stream;q=0", False),
        ("text/event-stream;q=x", False),
        ("text/event-stream;q=0.9, application/*", False),
        ("text/event-stream;q=0.9, */*", False),
        ("*/*", False),
        ("x/text/event-stream", False),
        ('text/plain;x="text/event-stream"', False),
        ('"' * 10_000, False),
        ("a" * 20_000 + ", text/event-stream", True),
    ],
)
def test_a_client_gets_the_stream_if_it_accepts_the_type_explicitly_and_prefers_no_other(accept, asks):
    assert asks_for_stream(accept) is asks


def test_a_media_type_is_one_alone_with_its_parameters_in_quotes_or_without():
    assert media_type('Application/JSON ; Charset="UTF-8"') == ("application/json", {"charset": "UTF-8"})
    assert media_type("application/json, text/plain")[0] == ""
    assert media_type(";") == ("", {})


def test_preferences_are_names_without_their_values():
    assert preferences('wait=10, Took;x, ,;=,y="a,b"') == {"wait", "took", "y"}


@pytest.mark.parametrize("name", ["userId", "\ud83d", "x" * 5000])
def test_a_repeated_name_in_a_json_object_is_reported(name):
    twice = json.dumps({name: ""})[:-1] + f", {json.dumps(name)}: 1}}"
    for body in (twice, f'{{"a": [{twice}]}}'):
        with pytest.raises(Problem) as caught:
            read_json(body.encode(), "application/json")
        assert caught.value.status is HTTPStatus.BAD_REQUEST
        assert "appears twice" in caught.value.detail
        assert len(msgspec.json.encode(caught.value.document())) < 1000
