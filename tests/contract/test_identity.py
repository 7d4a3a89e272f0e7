"""Auth and the participants each have their own idea of who is the same user; the two must be one (invariant 11)."""

from hypothesis import given
from hypothesis import strategies as st

import authsvc.identity
import participant.identity
from authsvc.models import Role

# Characters whose folding, composing or lower-casing is odd, beside any others.
TEXTS = st.text(st.one_of(st.characters(), st.sampled_from("ßẞİıΐΰΣς\u0345\u0301\u0323ſﬃﷺＡ각ㅎ @.。-\u00ad \u3000")))
# At the length from which on neither side normalises, and beyond.
LONG = st.builds(lambda text, size: (text * (size // len(text) + 1))[:size], st.text(min_size=1), st.integers(100, 600))


@given(TEXTS | LONG)
def test_both_sides_hold_the_same_user_ids_to_be_the_same(text):
    assert participant.identity.user_id_key(text) == authsvc.identity.user_id_key(text)


@given(TEXTS | LONG)
def test_both_sides_keep_the_same_user_id(text):
    assert participant.identity.normalize_user_id(text) == authsvc.identity.normalize_user_id(text)


@given(TEXTS | LONG)
def test_both_sides_keep_the_same_email(text):
    assert participant.identity.normalize_email(text) == authsvc.identity.normalize_email(text)


def test_whatever_auth_accepts_a_participant_can_keep():
    assert participant.identity.USER_ID_MAX >= authsvc.identity.USER_ID_MAX
    assert participant.identity.EMAIL_MAX >= authsvc.identity.EMAIL_MAX
    assert participant.identity.USER_NAME_MAX >= authsvc.identity.USER_NAME_MAX
    assert max(len(role) for role in Role.values) <= participant.identity.ROLE_MAX
