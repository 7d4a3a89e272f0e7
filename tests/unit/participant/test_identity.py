from hypothesis import given
from hypothesis import strategies as st

from participant.identity import (
    USER_ID_KEY_MAX,
    USER_ID_MAX,
    normalize_email,
    normalize_user_id,
    user_id_key,
)

# Letters whose folding or composing lengthens, shortens or reorders, beside any others.
TEXTS = st.text(st.one_of(st.characters(), st.sampled_from("ßẞİıΐΰᾳ\u0345\u0301\u0323ſﬃﷺＡ각ㅎ")))


def test_equal_user_ids_have_one_key():
    assert {user_id_key(text) for text in ["Straße", "STRASSE", "strasse", "ｓｔｒａｓｓｅ"]} == {"strasse"}


def test_different_user_ids_have_different_keys():
    assert user_id_key("kim") != user_id_key("kım")


@given(TEXTS)
def test_a_key_is_its_own_key(text):
    assert user_id_key(user_id_key(text)) == user_id_key(text) == user_id_key(normalize_user_id(text))


@given(TEXTS)
def test_what_was_normalised_stays_as_it_is(text):
    assert normalize_user_id(normalize_user_id(text)) == normalize_user_id(text)
    assert normalize_email(normalize_email(text)) == normalize_email(text)


@given(TEXTS)
def test_the_key_of_a_user_id_that_fits_fits(text):
    assert len(user_id_key(normalize_user_id(text)[:USER_ID_MAX])) <= USER_ID_KEY_MAX
