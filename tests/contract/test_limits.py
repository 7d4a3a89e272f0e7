"""The limits of texts: the form's are auth's, and texts that auth accepts fit into the participants' rows."""

from hypothesis import given

import authsvc.identity
import participant.limits
from authsvc.accounts import passwords
from authsvc.models import Role
from runtime.equality import normalize_user_id, user_id_key
from signup_sync.front import forms
from tests.unit.runtime.test_equality import TEXTS


def test_the_form_has_the_limits_of_auth():
    for name in ("USER_ID_MIN", "USER_ID_MAX", "USER_NAME_MAX", "EMAIL_MAX"):
        assert getattr(forms, name) == getattr(authsvc.identity, name), name
    for name in ("PASSWORD_MAX", "PASSWORD_BYTES_MAX"):
        assert getattr(forms, name) == getattr(passwords, name), name


def test_a_participant_can_store_every_text_that_auth_accepts():
    assert participant.limits.USER_ID_MAX >= authsvc.identity.USER_ID_MAX
    assert participant.limits.EMAIL_MAX >= authsvc.identity.EMAIL_MAX
    assert participant.limits.USER_NAME_MAX >= authsvc.identity.USER_NAME_MAX
    assert max(len(role) for role in Role.values) <= participant.limits.ROLE_MAX


@given(TEXTS)
def test_the_key_of_every_valid_user_id_fits_its_column(text):
    longest = normalize_user_id(text)[: participant.limits.USER_ID_MAX]
    assert len(user_id_key(longest)) <= participant.limits.USER_ID_KEY_MAX
