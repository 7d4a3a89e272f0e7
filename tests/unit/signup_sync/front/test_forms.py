import unicodedata

import pytest

from signup_sync.front.forms import SignUpForm
from signup_sync.front.gateway import FieldError, GatewayError

GOOD = {
    "userId": "hong",
    "userName": "Hong",
    "email": "hong@example.org",
    "userPw": " four unlikely w0rds ",
    "userPw2": " four unlikely w0rds ",
}


def errors_of(**changes: str) -> dict[str, list[str]]:
    return dict(SignUpForm(GOOD | changes).errors)


def test_a_valid_form_returns_the_input() -> None:
    form = SignUpForm(GOOD)
    assert form.is_valid()
    assert form.new_user.as_wire() == {name: GOOD[name] for name in ("userId", "userName", "email", "userPw")}


def test_the_repr_of_the_input_has_no_password() -> None:
    form = SignUpForm(GOOD)
    form.is_valid()
    assert "unlikely" not in repr(form.new_user)


@pytest.mark.parametrize("name", GOOD)
def test_every_field_is_required(name: str) -> None:
    assert list(errors_of(**{name: ""})) == [name]


@pytest.mark.parametrize("user_id", ["홍길동", unicodedata.normalize("NFD", "홍" * 32), "ab", "a" * 32])
def test_a_user_id_is_measured_as_it_is_kept(user_id: str) -> None:
    assert errors_of(userId=user_id) == {}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("userId", "a"),
        ("userId", "a" * 33),
        ("userId", "a" * 1000),
        ("userId", "ho\0ng"),
        ("userName", "a" * 101),
        ("userName", "ho\0ng"),
        ("email", "a" * 250 + "@example.org"),
        ("userPw", "a" * 129),
    ],
)
def test_a_value_that_can_never_be_valid_is_refused_at_its_field(name: str, value: str) -> None:
    assert name in errors_of(**{name: value})


def test_values_that_only_auths_rules_refuse_are_left_to_auth() -> None:
    assert errors_of(userId="no spaces 🙂", email="nobody") == {}


def test_two_different_passwords_are_refused_at_the_second() -> None:
    assert list(errors_of(userPw2="something else")) == ["userPw2"]


def test_the_gateways_messages_are_shown_at_the_fields_that_it_names() -> None:
    form = SignUpForm(GOOD)
    pointers = ("/userId", "/userPw", "/role", "")
    form.show_problem(GatewayError(422, "", errors=[FieldError(pointer, f"about {pointer}") for pointer in pointers]))
    assert form.errors == {
        "userId": ["about /userId"],
        "userPw": ["about /userPw"],
        "__all__": ["about /role", "about "],
    }


@pytest.mark.parametrize(
    ("problem", "words"),
    [
        (GatewayError(503, "", retry_after=5), "Try again in 5 seconds."),
        (GatewayError(429, "", retry_after=1), "Try again in 1 second."),
        (GatewayError(502, ""), "Try again in a moment."),
        (GatewayError(503, "", retry_after=0), "Try again in a moment."),
        (GatewayError(400, ""), "Reload this page"),
        (GatewayError(409, ""), "open the sign-up page again"),
    ],
)
def test_a_problem_without_fields_says_what_to_do(problem: GatewayError, words: str) -> None:
    form = SignUpForm(GOOD)
    form.show_problem(problem)
    assert words in form.non_field_errors()[0]


def test_an_unknown_refusal_is_reported_all_the_same() -> None:
    form = SignUpForm(GOOD)
    form.show_refusal("some new reason")
    assert form.non_field_errors()
