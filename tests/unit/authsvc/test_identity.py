import unicodedata

import pytest
from django.core.exceptions import ValidationError
from hypothesis import given
from hypothesis import strategies as st

from authsvc import identity
from runtime import equality


@pytest.mark.parametrize("text", ["kim", "Kim.Min-su_2", "김민수", "민수", "ab", "a" * 32, "東京99"])
def test_letters_and_digits_of_any_script_are_accepted(text):
    identity.validate_user_id(text)


@pytest.mark.parametrize(
    "text", ["", "a", "a" * 33, "a" * 1000, "kim min", "kim🙂", ".kim", "_kim", "-kim", "kim\n", "a\x00b", "a/b", "<b>"]
)
def test_invalid_user_ids_are_refused(text):
    with pytest.raises(ValidationError):
        identity.validate_user_id(text)


@pytest.mark.parametrize(
    ("one", "other"), [("Kim", "kIM"), ("ＫＩＭ", "kim"), ("Straße", "STRASSE"), ("각", "\u1100\u1161\u11a8")]
)
def test_user_ids_that_look_the_same_have_one_key(one, other):
    assert equality.user_id_key(one) == equality.user_id_key(other)


@given(st.text())
def test_the_key_is_stable(text):
    key = equality.user_id_key(text)
    assert equality.user_id_key(key) == key
    assert equality.user_id_key(unicodedata.normalize("NFD", text)) == key


def test_emails_are_compared_in_lower_case():
    assert equality.normalize_email(" Kim@Example.COM ") == "kim@example.com"


@pytest.mark.parametrize("text", ["", "kim", "kim@", "@example.com", "a b@example.com", f"{'a' * 64}@{'b' * 200}.com"])
def test_invalid_addresses_are_refused(text):
    with pytest.raises(ValidationError):
        identity.validate_address(text)


@pytest.mark.parametrize("text", ["", "a" * 101, "a\x07b", "a\x00", "\u200b", "abc\u202edef", "\u2066a\u2069"])
def test_names_that_cannot_be_displayed_are_refused(text):
    with pytest.raises(ValidationError):
        identity.validate_user_name(text)


def test_common_spellings_of_names_are_accepted():
    identity.validate_user_name("김 민수 👋 O'Neil-Núñez")
