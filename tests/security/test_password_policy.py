"""One password policy applies to every way of setting a password; one password has one spelling."""

import time
import unicodedata
from collections.abc import Callable
from io import StringIO
from typing import Any
from unittest import mock

import pytest
from django.contrib.auth.hashers import Argon2PasswordHasher, check_password, make_password
from django.contrib.auth.tokens import default_token_generator
from django.core.exceptions import ValidationError
from django.core.management import CommandError, call_command
from django.test import Client
from django.utils.encoding import force_bytes
from django.utils.http import urlsafe_base64_encode

from authsvc.accounts.passwords import PASSWORD_BYTES_MAX, PASSWORD_MAX
from authsvc.api.problems import Problem
from authsvc.api.signup_requests import check_password_strength, complaints, read_signup
from authsvc.models import User
from signup_sync.front.forms import SignUpForm
from tests.users import client_of

OLD = "correct horse 9"
SYLLABLE = "\ud55c"  # one character, which NFD spells with three of three bytes
NFD = unicodedata.normalize("NFD", SYLLABLE)
BAD = {
    "seven characters": "k7$mQz!",
    "seven characters of which each is typed as three": NFD * 7,
    "129 characters": "k7$mQz!pw" * 14 + "xyz",
    "129 characters of three bytes": SYLLABLE * 129,
    "900,000 characters": "correct horse " * 64_000,
    "combining marks whose order takes quadratic time": "a" + "\u0f73\u0f71" * 40_000,
    "a common password": "password123",
    "the last of the 20,000": "trustno1",
    "digits alone": "8236710349",
    "the user ID": "mina.kim-9",
    "the name": "Minseo Kimchi",
    "the address": "kimchi@example.org",
}
GOOD = {
    "eight characters": "k7$mQz!p",
    "128 characters": ("k7$mQz!pw" * 15)[:128],
    "128 characters of which each is typed as three": NFD * 128,
}
FIELDS = {"user_id": "mina.kim-9", "user_name": "Minseo Kimchi", "email": "kimchi@example.org"}
WIRE = {"userId": FIELDS["user_id"], "userName": FIELDS["user_name"], "email": FIELDS["email"]}


# Each function sets this password for a user with the fields above in a different way. It returns whether the password
# was accepted.


def by_sign_up(password: str) -> bool:
    try:
        check_password_strength(read_signup(WIRE | {"userPw": password}))
    except Problem:
        return False
    return True


def by_check_of_the_form(password: str) -> bool:
    assert complaints(WIRE) == {}
    return "userPw" not in complaints(WIRE | {"userPw": password})


def by_create_user(password: str) -> bool:
    try:
        User.objects.create_user(password=password, **FIELDS)
    except ValidationError:
        assert not User.objects.exists()
        return False
    return True


def existing() -> User:
    return User.objects.create_user(password=OLD, **FIELDS)


def taken(user: User, password: str) -> bool:
    """Whether it is the user's password now; otherwise the old one still is."""
    user.refresh_from_db()
    is_new = user.check_password(password)
    assert user.check_password(OLD) is not is_new
    return is_new


def by_change(password: str) -> bool:
    user = existing()
    fields = {"old_password": OLD, "new_password1": password, "new_password2": password}
    client_of(user).post("/account/password/", fields)
    return taken(user, password)


def by_reset(password: str) -> bool:
    user = existing()
    client = Client()
    uid = urlsafe_base64_encode(force_bytes(user.pk))
    page = client.get(f"/password/{uid}/{default_token_generator.make_token(user)}/", follow=True)
    client.post(page.redirect_chain[-1][0], {"new_password1": password, "new_password2": password})
    return taken(user, password)


def root() -> Client:
    return client_of(User.objects.create_superuser("root-user", "root@example.com", OLD))


def by_the_admins_add_page(password: str) -> bool:
    fields = {**FIELDS, "role": "ROLE_USER", "password1": password, "password2": password, "usable_password": "true"}
    answer = root().post("/admin/authsvc/user/add/", fields)
    assert answer.status_code in (200, 302, 400)  # 400: longer than any field
    return User.objects.filter(user_id_key=FIELDS["user_id"]).exists()


def by_the_admins_password_page(password: str) -> bool:
    user = existing()
    fields = {"password1": password, "password2": password, "usable_password": "true"}
    root().post(f"/admin/authsvc/user/{user.pk}/password/", fields)
    return taken(user, password)


def by_make_admin(password: str) -> bool:
    named = {"ADMIN_USER_ID": FIELDS["user_id"], "ADMIN_EMAIL": FIELDS["email"], "ADMIN_PASSWORD": password}
    with mock.patch.dict("os.environ", named):
        return is_done(lambda: call_command("make_admin", stdout=StringIO()))


def by_createsuperuser(password: str) -> bool:
    with mock.patch.dict("os.environ", {"DJANGO_SUPERUSER_PASSWORD": password}):
        named = {name: FIELDS[name] for name in ("user_id", "email")}
        return is_done(lambda: call_command("createsuperuser", interactive=False, verbosity=0, **named))


def by_changepassword(password: str) -> bool:
    user = existing()
    with mock.patch("getpass.getpass", return_value=password):
        is_done(lambda: call_command("changepassword", FIELDS["user_id"], stdout=StringIO(), stderr=StringIO()))
    return taken(user, password)


def is_done(command: Callable[[], Any]) -> bool:
    try:
        command()
    except CommandError:
        return False
    return True


WAYS = [
    by_create_user, by_change, by_reset, by_the_admins_add_page, by_the_admins_password_page, by_make_admin,
    by_createsuperuser, by_changepassword,
]  # fmt: skip


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("set_password", WAYS)
def test_every_way_to_set_a_password_has_the_policy(set_password: Callable[[str], bool]):
    for what, password in BAD.items():
        # Commands that make an administrator have no name to compare with.
        if what == "the name" and set_password in (by_make_admin, by_createsuperuser):
            continue
        began = time.thread_time()
        assert not set_password(password), what
        assert time.thread_time() - began < 2, what
        User.objects.all().delete()
    for what, password in GOOD.items():
        assert set_password(password), what
        User.objects.all().delete()


@pytest.mark.parametrize("ask", [by_sign_up, by_check_of_the_form])
def test_the_policy_applies_to_sign_ups_and_to_checks_while_typing(ask: Callable[[str], bool]):
    assert [what for what, password in BAD.items() if ask(password)] == []
    assert [what for what, password in GOOD.items() if not ask(password)] == []


def test_the_form_refuses_only_passwords_that_are_too_long_for_auth():
    def has_error(password: str) -> bool:
        return "userPw" in SignUpForm(WIRE | {"userPw": password, "userPw2": password}).errors

    assert [what for what, password in GOOD.items() if has_error(password)] == []
    assert [what for what, password in BAD.items() if has_error(password)] == [
        "129 characters", "129 characters of three bytes", "900,000 characters",
        "combining marks whose order takes quadratic time",
    ]  # fmt: skip


@pytest.mark.parametrize(("typed", "set_as"), [("NFC", "NFD"), ("NFD", "NFC"), ("NFD", "NFD")])
@pytest.mark.django_db(transaction=True)
def test_a_password_logs_in_however_it_is_spelled(typed: Any, set_as: Any):
    password = "\ube44\ubc00\ubc88\ud638 caf\u00e9 9!"
    User.objects.create_user("mina.k", "mina@example.org", unicodedata.normalize(set_as, password))
    fields = {"username": "mina.k", "password": unicodedata.normalize(typed, password)}
    assert Client().post("/login/", fields).status_code == 302


def test_hashes_that_were_made_before_keep_working():
    password = unicodedata.normalize("NFD", "\ube44\ubc00\ubc88\ud638 12")
    with mock.patch("authsvc.accounts.passwords.Argon2idHasher.encode", Argon2PasswordHasher.encode):
        of_the_text_as_typed = make_password(password)
    assert check_password(password, of_the_text_as_typed)
    assert not check_password(password + "x", of_the_text_as_typed)
    plain = make_password(OLD)
    assert check_password(OLD, plain)


def test_an_unknown_user_costs_as_many_hashes_as_a_wrong_password():
    hashed = []
    inner = Argon2PasswordHasher.encode
    with mock.patch.object(
        Argon2PasswordHasher, "encode", lambda self, *texts: hashed.append(1) or inner(self, *texts)
    ):
        for password in (OLD, NFD * 8):
            hashed.clear()
            User().set_password(password)
            assert len(hashed) == (1 if password == OLD else 2)
    verified = []
    inner_verify = Argon2PasswordHasher.verify
    with mock.patch.object(
        Argon2PasswordHasher, "verify", lambda self, *texts: verified.append(1) or inner_verify(self, *texts)
    ):
        for password in (OLD, NFD * 8):
            verified.clear()
            check_password(password, make_password("another 1"))
            assert len(verified) == (1 if password == OLD else 2)


def test_the_limit_in_bytes_refuses_no_valid_password():
    longest = max(len(unicodedata.normalize("NFD", chr(code)).encode()) for code in range(0x20, 0xD800))
    assert longest * PASSWORD_MAX <= PASSWORD_BYTES_MAX
