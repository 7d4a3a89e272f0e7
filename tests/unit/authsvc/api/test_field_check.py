"""The errors of a field that is checked while the form is being filled in."""

import time

import pytest
from django.utils.translation import override

from authsvc.api.signup_requests import complaints

GOOD = {"userId": "mina.k", "userName": "Mina Kim", "email": "mina@example.org", "userPw": "correct horse battery"}


def test_valid_and_empty_fields_have_no_errors():
    assert complaints(GOOD) == {}
    assert complaints({}) == {}
    assert complaints(dict.fromkeys(GOOD, "")) == {}


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("userId", "no spaces", "begin with a letter or digit"),
        ("userName", " \n ", "Enter a name"),
        ("email", "nowhere", "valid email address"),
        ("userPw", "12345678", "entirely numeric"),
        ("userPw", "mina.k12", "too similar to the user ID"),
        ("userPw", "x" * 129, "at most 128"),
    ],
)
def test_errors_are_keyed_by_field_as_in_post_user(name: str, value: str, words: str):
    wrong = complaints(GOOD | {name: value})
    assert list(wrong) == [name]
    assert words in " ".join(wrong[name])


def test_errors_are_in_the_language_of_the_page():
    with override("ko"):
        assert complaints({"userId": "no spaces"})["userId"][0].startswith("글자, 숫자")


def test_unknown_fields_are_ignored():
    assert complaints({"role": "ROLE_GOD", "csrfmiddlewaretoken": "x"}) == {}


def test_megabytes_are_not_compared_with_the_password():
    begun = time.process_time()
    assert "userName" in complaints({"userPw": "correct horse battery", "userName": "a b " * 500_000})
    assert time.process_time() - begun < 1.0
