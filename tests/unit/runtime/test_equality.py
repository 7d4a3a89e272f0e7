from hypothesis import given
from hypothesis import strategies as st

from runtime.equality import EMAIL_BYTES_MAX, USER_ID_BYTES_MAX, normalize_email, normalize_user_id, user_id_key

# Letters that folding or composition lengthens, shortens or reorders, besides arbitrary ones.
TEXTS = st.text(st.one_of(st.characters(), st.sampled_from("ßẞİıΐΰᾳΣς\u0345\u0301\u0323ſﬃﷺＡ각ㅎ @.。-\u00ad \u3000")))
# At the length beyond which nothing is normalised, and above.
LONG = st.builds(lambda text, size: (text * (size // len(text) + 1))[:size], st.text(min_size=1), st.integers(100, 600))


def test_equal_user_ids_have_one_key():
    assert {user_id_key(text) for text in ["Straße", "STRASSE", "strasse", "ｓｔｒａｓｓｅ"]} == {"strasse"}


def test_different_user_ids_have_different_keys():
    assert user_id_key("kim") != user_id_key("kım")


@given(TEXTS)
def test_the_key_of_a_key_is_the_same_key(text):
    assert user_id_key(user_id_key(text)) == user_id_key(text) == user_id_key(normalize_user_id(text))


@given(TEXTS | LONG)
def test_normalising_twice_changes_nothing_further(text):
    assert normalize_user_id(normalize_user_id(text)) == normalize_user_id(text)
    assert normalize_email(normalize_email(text)) == normalize_email(text)


@given(LONG)
def test_text_that_is_too_long_is_not_normalised(text):
    if len(text.encode(errors="surrogatepass")) > USER_ID_BYTES_MAX:
        assert user_id_key(text) == normalize_user_id(text) == text
    if len(text.encode(errors="surrogatepass")) > EMAIL_BYTES_MAX:
        assert normalize_email(text) == text
