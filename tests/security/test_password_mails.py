"""Mails about passwords: their recipients, their links, the effect of a link, and that they contain no user-supplied
text."""

import re
from collections.abc import Callable
from datetime import datetime, timedelta
from io import StringIO
from unittest import mock

import pytest
from django.contrib.auth.hashers import Argon2PasswordHasher, make_password
from django.core import mail
from django.core.mail import EmailMessage
from django.core.management import call_command
from django.test import Client

from authsvc.mail import mail_worker
from authsvc.models import User
from authsvc.signups.changes import change_account
from tests.users import client_of
from tests.waiting import eventually

pytestmark = pytest.mark.django_db(transaction=True)

OLD, NEW = "correct horse 9", "quite another w0rd"
LURE = "WARNING: log in at https://evil.example"
FIELDS = {"user_id": "www.evil.example", "user_name": LURE, "email": "victim@example.org"}
PUBLIC_URL = "https://signup.example.org"
KOREAN = {"accept-language": "ko"}


@pytest.fixture(autouse=True)
def public_url(settings) -> None:
    settings.PUBLIC_URL = PUBLIC_URL
    settings.ALLOWED_HOSTS = ["*"]
    # All of these tests ask for the same mailbox.
    settings.RATE_LIMIT_CONFIRM = 0


@pytest.fixture
def user() -> User:
    return User.objects.create_user(password=OLD, **FIELDS)


def mails() -> list[EmailMessage]:
    """All sent mails, once the queue is empty."""
    eventually(lambda: mail_worker().waiting == 0)
    return mail.outbox


def ask(email: str = FIELDS["email"], **extra: str) -> None:
    headers = {name: value for name, value in extra.items() if "-" in name}
    environ = {name: value for name, value in extra.items() if "-" not in name}
    assert Client(headers=headers, **environ).post("/password/", {"email": email}).status_code == 302


def link_in(sent: EmailMessage) -> str:
    [link] = re.findall(r"https?://\S+", sent.body)
    return link


def set_password(path: str, password: str = NEW) -> Client:
    client = Client()
    page = client.get(path, follow=True)
    if page.redirect_chain:
        client.post(page.redirect_chain[-1][0], {"new_password1": password, "new_password2": password})
    return client


def change(user: User, **headers: str) -> Client:
    client = client_of(user)
    fields = {"old_password": OLD, "new_password1": NEW, "new_password2": NEW}
    assert client.post("/account/password/", fields, headers=headers).status_code == 302
    return client


# --- The link ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"HTTP_HOST": "gateway"},
        {"HTTP_HOST": "127.0.0.1:9999"},
        {"HTTP_HOST": "evil.example"},
        {"x-forwarded-host": "evil.example"},
        {"forwarded": "host=evil.example;proto=http"},
        {"HTTP_HOST": "gateway:80", "x-forwarded-proto": "http", "x-forwarded-port": "81"},
    ],
)
def test_a_link_leads_to_the_public_address_whatever_host_the_request_names(user: User, extra: dict[str, str]):
    ask(**extra)
    [sent] = mails()
    assert link_in(sent).startswith(f"{PUBLIC_URL}/password/")
    assert "evil" not in sent.body + sent.subject
    assert "gateway" not in sent.body


def test_a_link_works_once(user: User):
    ask()
    path = link_in(mails()[0]).removeprefix(PUBLIC_URL)
    set_password(path)
    user.refresh_from_db()
    assert user.check_password(NEW)
    set_password(path, "a third w0rd of it")
    user.refresh_from_db()
    assert user.check_password(NEW)
    assert "This link no longer works" in Client().get(path, follow=True).content.decode()


@pytest.mark.parametrize(("minutes", "works"), [(59, True), (61, False)])
def test_a_link_works_for_an_hour(user: User, minutes: int, works: bool):
    ask()
    path = link_in(mails()[0]).removeprefix(PUBLIC_URL)
    with mock.patch("django.contrib.auth.tokens.PasswordResetTokenGenerator._now") as now:
        now.return_value = datetime.now() + timedelta(minutes=minutes)
        set_password(path)
    user.refresh_from_db()
    assert user.check_password(NEW) is works


def test_a_link_from_before_a_change_of_the_password_no_longer_works(user: User):
    ask()
    path = link_in(mails()[0]).removeprefix(PUBLIC_URL)
    change(user)
    set_password(path, "a third w0rd of it")
    user.refresh_from_db()
    assert user.check_password(NEW)


# --- The text of the mails --------------------------------------------------------------------------------------


def test_a_mail_contains_no_text_supplied_by_the_person(user: User):
    ask()
    change(user)
    reset, told = mails()
    for sent in (reset, told):
        assert sent.to == [FIELDS["email"]]
        for word in ("evil", "WARNING", user.user_id, user.user_name, user.email):
            assert word not in sent.subject + sent.body


def test_a_mail_is_in_the_language_of_the_request(user: User):
    ask(**KOREAN)
    change(user, **KOREAN)
    ask()
    reset, told, english = mails()
    assert (reset.subject, told.subject) == ("Signup Sync 비밀번호 재설정", "Signup Sync 비밀번호가 변경되었습니다")
    assert "링크는 한 시간 동안 한 번만 쓸 수 있습니다." in reset.body
    assert "지금 새 비밀번호를 설정하세요." in told.body
    assert english.subject == "Reset your Signup Sync password"
    assert "The link works once and expires in an hour." in english.body


# --- Notices about a new password ------------------------------------------------------------------------------


def by_change(user: User) -> None:
    change(user)


def by_reset(user: User) -> None:
    ask()
    path = link_in(mails()[0]).removeprefix(PUBLIC_URL)
    mail.outbox.clear()
    set_password(path)


def by_an_administrator(user: User) -> None:
    root = client_of(User.objects.create_superuser("root-user", "root@example.com", OLD))
    fields = {"password1": NEW, "password2": NEW, "usable_password": "true"}
    assert root.post(f"/admin/authsvc/user/{user.pk}/password/", fields).status_code == 302


def by_a_command(user: User) -> None:
    with mock.patch("getpass.getpass", return_value=NEW):
        call_command("changepassword", user.user_id, stdout=StringIO())


def by_code(user: User) -> None:
    user.set_password(NEW)
    user.save(update_fields=["password"])


@pytest.mark.parametrize(
    "replace",
    [by_change, by_reset, by_an_administrator, by_a_command, by_code],
)
def test_the_owner_is_notified_of_a_new_password_with_advice_and_other_sessions_end(
    user: User, replace: Callable[[User], None]
):
    elsewhere = client_of(user)
    assert elsewhere.get("/account/").status_code == 200
    replace(user)
    [sent] = mails()
    assert (sent.to, sent.subject) == ([FIELDS["email"]], "Your Signup Sync password was changed")
    assert link_in(sent) == f"{PUBLIC_URL}/password/"
    assert re.search(r"was changed at \d{4}-\d\d-\d\d \d\d:\d\d \w+\.", sent.body)
    assert elsewhere.get("/account/").status_code == 302


def test_the_session_that_changes_the_password_stays_logged_in(user: User):
    assert change(user).get("/account/").status_code == 200


def test_no_mail_is_sent_if_the_password_stays_the_same(user: User):
    user.user_name = "Another"
    change_account(user)
    client_of(user).post("/account/password/", {"old_password": "wrong", "new_password1": NEW, "new_password2": NEW})
    # A rehash with other parameters is no new password.
    with mock.patch.object(Argon2PasswordHasher, "time_cost", 3):
        user.password = make_password(OLD)
    user.save()
    assert user.check_password(OLD)
    assert mails() == []
