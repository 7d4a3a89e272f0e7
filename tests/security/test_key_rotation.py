"""Signatures and derived IDs remain valid after SECRET_KEY was replaced, while the old key is a fallback."""

import re
from collections.abc import Callable
from http.cookies import SimpleCookie
from typing import Any
from uuid import uuid4

import pytest
from django.conf import LazySettings
from django.contrib.auth.tokens import default_token_generator
from django.core import mail
from django.test import Client

from authsvc.accounts.api_sessions import may_add_admin
from authsvc.accounts.profile import address_links
from authsvc.mail import mail_worker
from authsvc.models import UnconfirmedSignUp, User
from authsvc.signups import confirmation
from authsvc.user_import.checks import derived_signup_id, former_ids_of
from tests.security.test_two_factor import code_of, give_code, give_password, is_logged_in
from tests.security.test_two_factor import codes as codes
from tests.security.test_two_factor import user as user
from tests.signups import new_signup
from tests.waiting import eventually

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "chat", "customer"])

NEW_KEY = "another key, of more than fifty characters, as openssl makes them"


@pytest.fixture
def replace_key(settings) -> Callable[[], None]:
    """Replace SECRET_KEY and keep the old one as a fallback. Another call ends the rotation."""

    def replace() -> None:
        if settings.SECRET_KEY == NEW_KEY:
            settings.SECRET_KEY_FALLBACKS = []
        else:
            settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = NEW_KEY, [settings.SECRET_KEY]

    return replace


def test_a_session_outlives_the_key_and_then_the_fallback(user: User, replace_key: Callable[[], None]):
    client = Client()
    give_password(client)
    session_key = client.cookies["sessionid"].value
    replace_key()
    assert is_logged_in(client)
    assert client.cookies["sessionid"].value == session_key
    replace_key()
    assert is_logged_in(client)


def test_a_session_that_nobody_used_during_the_rotation_ends_with_the_fallback(
    user: User, replace_key: Callable[[], None]
):
    client = Client()
    give_password(client)
    replace_key()
    replace_key()
    assert not is_logged_in(client)


def test_another_request_with_the_same_cookie_is_logged_in_too(user: User, replace_key: Callable[[], None]):
    """Two tabs, or a page and its script: the second request was sent before the first one's answer arrived."""
    client, second = Client(), Client()
    give_password(client)
    second.cookies = SimpleCookie({name: morsel.value for name, morsel in client.cookies.items()})
    replace_key()
    assert is_logged_in(client)
    assert is_logged_in(second)


def test_a_request_to_the_api_neither_refuses_nor_ends_the_session(user: User, replace_key: Callable[[], None]):
    client = Client()
    give_password(client)
    csrf = client.get("/login/").cookies.get("csrftoken") or client.cookies["csrftoken"]
    replace_key()
    session_key = client.cookies["sessionid"].value
    scope: Any = {
        "type": "http", "method": "POST", "path": "/user", "query_string": b"", "server": ("testserver", 80),
        "headers": [
            (b"cookie", f"sessionid={session_key}; csrftoken={csrf.value}".encode()),
            (b"x-csrftoken", csrf.value.encode()),
        ],
    }  # fmt: skip
    assert may_add_admin(scope, user_id="somebody")
    assert is_logged_in(client)


def test_a_login_between_password_and_code_continues_after_the_rotation(
    user: User, codes: list[str], replace_key: Callable[[], None]
):
    client = Client()
    give_password(client)
    replace_key()
    give_code(client, code_of(user))
    assert is_logged_in(client)


def test_links_to_a_new_password_and_to_a_new_address_still_work(
    user: User, replace_key: Callable[[], None], settings: LazySettings
):
    # Other tests of this run ask for links to the same mailbox.
    settings.RATE_LIMIT_CONFIRM = 0
    Client().post("/password/", {"email": user.email})
    eventually(lambda: mail_worker().waiting == 0)
    [path] = re.findall(r"https?://[^/]+(/password/\S+)", mail.outbox[-1].body)
    token = address_links.token_for(user, "new@example.org")
    replace_key()
    assert address_links.address_in(token, user) == "new@example.org"
    client = Client()
    form = client.get(path, follow=True)
    assert form.status_code == 200
    new = "a new battery staple 7"
    shown = form.redirect_chain[-1][0]
    assert client.post(shown, {"new_password1": new, "new_password2": new}).status_code == 302
    user.refresh_from_db()
    assert user.check_password(new)
    assert not default_token_generator.check_token(user, path.rstrip("/").rsplit("/", 1)[-1])


def test_a_link_that_confirms_a_sign_up_still_works(replace_key: Callable[[], None]):
    row = UnconfirmedSignUp(id=uuid4())
    token = confirmation.token_for(row)
    replace_key()
    assert confirmation.read_token(token)[0] == row.id


def test_the_line_of_an_earlier_import_is_recognised(replace_key: Callable[[], None]):
    new = new_signup("mina")
    fields = {"userId": new.user_id, "email": new.email, "userName": new.user_name, "role": new.role}
    before = derived_signup_id(fields)
    assert former_ids_of(new) == []
    replace_key()
    assert derived_signup_id(fields) != before
    assert former_ids_of(new) == [before]
