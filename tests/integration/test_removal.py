"""Removing accounts: by their owners, by administrators, and by a command."""

import sqlite3
from datetime import UTC, datetime, timedelta
from io import StringIO
from uuid import uuid4

import pytest
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth.tokens import default_token_generator
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client
from django.utils import timezone
from django.utils.encoding import force_bytes
from django.utils.http import urlsafe_base64_encode

from authsvc.accounts.change_redirect import CHANGE_COOKIE, lights_path
from authsvc.accounts.closing.schedule import keep_account, remove_closed
from authsvc.accounts.profile.forms import ProfileForm
from authsvc.accounts.two_factor.devices import begin_setup, new_recovery_codes
from authsvc.accounts.users_admin import UserAdmin
from authsvc.lights import Kind
from authsvc.models import EventTransaction, NoSuchAccountError, RemovedAccount, User
from authsvc.signups.changes import remove_account
from authsvc.signups.events import ANSWER_TOPICS, REQUEST_TOPICS
from eventbus.topics import ensure_topics
from tests.conftest import new_person
from tests.signups import save_signup

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.needs("broker", "redis")]
PASSWORD = "correct horse 9"


@pytest.fixture(autouse=True)
def own_topics(settings) -> None:
    settings.KAFKA_PREFIX = f"removal-{uuid4()}-"
    ensure_topics([*REQUEST_TOPICS.values(), *ANSWER_TOPICS.values()])


def new_user(**fields: object) -> User:
    person = new_person()
    return User.objects.create_user(person.user_id, person.email, PASSWORD, **fields)


@pytest.fixture
def kim() -> User:
    return new_user()


def logged_in(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def removal() -> EventTransaction:
    return EventTransaction.objects.get(kind=Kind.REMOVAL)


def is_removed(user: User) -> bool:
    return RemovedAccount.objects.filter(pk=user.owner_signup_id).exists() and not User.objects.filter(pk=user.pk)


# --- By the owner ---------------------------------------------------------------------------------------------------


def test_the_owner_closes_the_account_at_once_and_is_shown_the_lights(kim, settings):
    settings.ACCOUNT_CLOSING_DAYS = 0
    client = logged_in(kim)
    assert "This cannot be undone" in client.get("/account/close/").content.decode()
    answer = client.post("/account/close/", {"password": PASSWORD})
    assert (answer.status_code, answer["Location"]) == (302, lights_path(removal()))
    assert answer.cookies[CHANGE_COOKIE].value
    assert is_removed(kim)
    assert client.get("/account/").status_code == 302


def test_a_wrong_password_closes_nothing(kim, settings):
    settings.ACCOUNT_CLOSING_DAYS = 0
    answer = logged_in(kim).post("/account/close/", {"password": "wrong"})
    assert "This password is wrong." in answer.content.decode()
    assert not is_removed(kim)


def test_with_a_grace_period_the_owner_can_keep_the_account(kim, settings, mailoutbox):
    settings.ACCOUNT_CLOSING_DAYS = 7
    client = logged_in(kim)
    page = client.post("/account/close/", {"password": PASSWORD}, follow=True).content.decode()
    assert page.count("Your account will be closed on") == 1
    assert "Close your account" not in page
    kim.refresh_from_db()
    assert timedelta(days=6) < kim.closes_at - timezone.now() <= timedelta(days=7)
    assert remove_closed(10) == 0
    # A second request postpones nothing.
    before = kim.closes_at
    client.post("/account/close/", {"password": PASSWORD})
    kim.refresh_from_db()
    assert kim.closes_at == before
    assert "Your account stays open." in client.post("/account/keep/", follow=True).content.decode()
    kim.refresh_from_db()
    assert kim.closes_at is None


def test_the_relay_removes_the_account_when_the_grace_period_is_over(kim):
    User.objects.filter(pk=kim.pk).update(closes_at=timezone.now())
    kept = new_user()
    User.objects.filter(pk=kept.pk).update(closes_at=timezone.now())
    assert keep_account(kept)
    assert remove_closed(10) == 1
    assert is_removed(kim)
    assert not is_removed(kept)
    assert remove_closed(10) == 0


def test_the_relay_does_not_remove_a_user_who_cancelled_the_closing_meanwhile(kim, monkeypatch):
    User.objects.filter(pk=kim.pk).update(closes_at=timezone.now())
    from authsvc.accounts.closing import schedule

    original = schedule.remove_account

    def late(user: User, **options: object) -> EventTransaction:
        keep_account(user)
        return original(user, **options)

    monkeypatch.setattr(schedule, "remove_account", late)
    remove_closed(10)
    assert not is_removed(kim)


def test_the_relay_does_not_remove_a_user_who_closed_again_or_became_staff_meanwhile(kim, monkeypatch):
    from authsvc.accounts.closing import schedule

    original = schedule.remove_account
    for change in ({"closes_at": timezone.now() + timedelta(days=7)}, {"is_staff": True}):
        User.objects.filter(pk=kim.pk).update(closes_at=timezone.now())

        def late(user: User, change: dict[str, object] = change, **options: object) -> EventTransaction:
            User.objects.filter(pk=user.pk).update(**change)
            return original(user, **options)

        monkeypatch.setattr(schedule, "remove_account", late)
        remove_closed(10)
        assert not is_removed(kim)


def test_staff_are_sent_to_another_administrator(settings):
    settings.ACCOUNT_CLOSING_DAYS = 0
    staff = new_user(is_staff=True)
    client = logged_in(staff)
    page = client.get("/account/close/", follow=True).content.decode()
    assert "Staff accounts can only be removed by another administrator." in page
    client.post("/account/close/", {"password": PASSWORD})
    assert not is_removed(staff)


def test_nobody_closes_an_account_without_logging_in():
    assert Client().post("/account/close/", {"password": PASSWORD})["Location"].startswith("/login/")


# --- By administrators ----------------------------------------------------------------------------------------------


@pytest.fixture
def administrator() -> User:
    return User.objects.create_superuser("root-user", "root@example.org", PASSWORD)


def test_an_administrator_sees_when_an_account_will_be_closed(kim, administrator):
    path = f"/admin/authsvc/user/{kim.pk}/change/"
    assert "March 14, 2031" not in logged_in(administrator).get(path).content.decode()
    User.objects.filter(pk=kim.pk).update(closes_at=datetime(2031, 3, 14, 12, tzinfo=UTC))
    assert "March 14, 2031" in logged_in(administrator).get(path).content.decode()


def test_an_administrator_removes_a_user(kim, administrator):
    client = logged_in(administrator)
    LogEntry.objects.log_actions(administrator.pk, [kim], CHANGE, "Changed")
    page = client.post(f"/admin/authsvc/user/{kim.pk}/delete/", {"post": "yes"}, follow=True).content.decode()
    assert f"/admin/authsvc/eventtransaction/{removal().id}/change/" in page
    assert is_removed(kim)
    row = removal()
    EventTransaction.objects.filter(id=row.id).update(user_id="", user_id_key="")
    timeline = client.get(f"/admin/authsvc/eventtransaction/{row.id}/change/").content.decode()
    assert "<h1>Removal of an erased account</h1>" in timeline
    assert f"&rsaquo; {row.id}\n" in timeline
    # The log still describes the action, without naming the person.
    assert set(LogEntry.objects.filter(object_id=str(kim.pk)).values_list("object_repr", flat=True)) == {
        str(kim.owner_signup_id)
    }


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/admin/authsvc/user/{}/delete/", {}),
        ("/admin/authsvc/user/", {"action": "delete_selected", "_selected_action": "{}"}),
    ],
)
def test_of_two_administrators_who_remove_one_user_neither_leaves_a_name_in_the_log(
    kim, administrator, monkeypatch, path, fields
):
    log = UserAdmin.log_deletions

    def lose_and_log(self, request, rows):
        found = list(rows)
        remove_account(kim)
        log(self, request, found)

    monkeypatch.setattr(UserAdmin, "log_deletions", lose_and_log)
    fields = {name: value.format(kim.pk) for name, value in fields.items()} | {"post": "yes"}
    assert logged_in(administrator).post(path.format(kim.pk), fields).status_code == 302
    [entry] = LogEntry.objects.filter(object_id=str(kim.pk))
    assert entry.object_repr == str(kim.owner_signup_id)


def test_administrators_cannot_remove_their_own_accounts(administrator):
    client = logged_in(administrator)
    path = f"/admin/authsvc/user/{administrator.pk}/"
    assert f"{path}delete/" not in client.get(f"{path}change/").content.decode()
    assert client.post(f"{path}delete/", {"post": "yes"}).status_code == 403
    assert not is_removed(administrator)


def test_an_administrator_removes_many_users(administrator):
    users = [new_user() for _ in range(3)]
    chosen = {"action": "delete_selected", "_selected_action": [user.pk for user in users], "post": "yes"}
    page = logged_in(administrator).post("/admin/authsvc/user/", chosen, follow=True).content.decode()
    assert "Successfully deleted 3 users" in page
    assert all(map(is_removed, users))
    assert EventTransaction.objects.filter(kind=Kind.REMOVAL).count() == 3
    listed = logged_in(administrator).get("/admin/authsvc/eventtransaction/?kind__exact=removal")
    assert listed.context["cl"].result_count == 3


def test_no_number_of_refused_sign_ups_keeps_an_account_from_being_removed(kim):
    # Strangers can add as many as they like. An upstream build of SQLite accepts 32,766 values in a statement.
    limit, count = 2000, 2100
    refused = [
        EventTransaction(
            id=uuid4(), owner_signup_id=kim.owner_signup_id, user_id=f"u{n}", user_id_key=f"u{n}", email=kim.email,
            user_name="Stranger", lights={}, version=2, pending_count=0, failed_count=0, completed_at=timezone.now(),
        )
        for n in range(count)
    ]  # fmt: skip
    EventTransaction.objects.bulk_create(refused, batch_size=50)
    if connection.vendor == "sqlite":
        connection.ensure_connection()
        usual = connection.connection.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, limit)
    try:
        remove_account(kim)
    finally:
        if connection.vendor == "sqlite":
            connection.connection.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, usual)
    assert is_removed(kim)
    assert not EventTransaction.objects.exclude(kind=Kind.REMOVAL).exclude(user_id="", email="").exists()


def test_a_removal_ends_its_pending_transactions_page_by_page(kim, monkeypatch):
    monkeypatch.setattr("authsvc.signups.changes.PAGE", 2)
    signups = [save_signup(kim.user_id, email=f"else-{n}@example.org") for n in range(5)]
    refused = EventTransaction.objects.filter(id__in=[each.id for each in signups])
    LogEntry.objects.log_actions(new_user(is_staff=True).pk, refused, CHANGE, "Replayed")
    remove_account(kim)
    for row in refused.all():
        assert (row.pending_count, row.user_id, row.state.lights["chat"].status) == (0, "", "FAIL")
    names = LogEntry.objects.filter(object_id__in=[str(each.id) for each in signups])
    assert [each.object_repr for each in names] == 5 * [str(kim.owner_signup_id)]


# --- While a page is handled ----------------------------------------------------------------------------------------


@pytest.fixture
def removed_meanwhile(kim, monkeypatch) -> None:
    """Remove the account as soon as a request has hashed a password, which takes the longest part of its time."""

    def then_remove(name: str) -> None:
        original = getattr(User, name)

        def hash_and_remove(user: User, password: str):
            result = original(user, password)
            if stored := User.objects.filter(pk=kim.pk).first():
                remove_account(stored)
            return result

        monkeypatch.setattr(User, name, hash_and_remove)

    then_remove("check_password")
    then_remove("set_password")


NEW_PASSWORDS = {"new_password1": "quite another w0rd", "new_password2": "quite another w0rd"}


@pytest.mark.usefixtures("removed_meanwhile")
@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/account/close/", {"password": PASSWORD}),
        ("/account/password/", {"old_password": PASSWORD} | NEW_PASSWORDS),
        ("/account/", {"user_name": "New", "email": "new@example.org", "password": PASSWORD}),
    ],
)
def test_the_owner_of_an_account_that_is_removed_meanwhile_is_logged_out(kim, path, fields):
    client = logged_in(kim)
    if path == "/account/":
        fields = ProfileForm.values_of(kim) | fields
    answer = client.post(path, fields)
    assert (answer.status_code, answer["Location"]) == (302, "/login/")
    assert "This account has been removed." in client.get("/login/").content.decode()
    assert client.get("/account/").status_code == 302
    assert is_removed(kim)


@pytest.mark.usefixtures("removed_meanwhile")
def test_nobody_logs_in_to_an_account_that_is_removed_meanwhile(kim):
    client = Client()
    answer = client.post("/login/", {"username": kim.user_id, "password": PASSWORD}, follow=True)
    assert "This account has been removed." in answer.content.decode()
    assert client.get("/account/").status_code == 302


@pytest.mark.usefixtures("removed_meanwhile")
def test_an_account_that_is_removed_meanwhile_gets_no_new_password(kim):
    uid = urlsafe_base64_encode(force_bytes(kim.pk))
    client = Client()
    # The link's token moves to the session.
    path = client.get(f"/password/{uid}/{default_token_generator.make_token(kim)}/")["Location"]
    answer = client.post(path, NEW_PASSWORDS, follow=True)
    assert "This account has been removed." in answer.content.decode()


def test_an_administrator_who_sets_the_password_of_an_account_that_is_removed_meanwhile_stays_logged_in(
    kim, administrator, removed_meanwhile
):
    fields = {"password1": "quite another w0rd", "password2": "quite another w0rd", "usable_password": "true"}
    answer = logged_in(administrator).post(f"/admin/authsvc/user/{kim.pk}/password/", fields, follow=True)
    assert answer.redirect_chain == [("/admin/authsvc/user/", 302)]
    assert "This account has been removed." in answer.content.decode()


@pytest.mark.parametrize("write", [begin_setup, new_recovery_codes])
def test_an_account_that_was_removed_gets_no_second_factor(kim, write):
    remove_account(User.objects.get(pk=kim.pk))
    with pytest.raises(NoSuchAccountError):
        write(kim)


# --- By a command ---------------------------------------------------------------------------------------------------


def test_forget_removes_accounts_and_says_which(kim, capsys):
    other = new_user()
    call_command("forget", kim.user_id.upper(), other.user_id, "--yes")
    assert is_removed(kim)
    assert is_removed(other)
    printed = capsys.readouterr().out
    for row in EventTransaction.objects.filter(kind=Kind.REMOVAL):
        assert str(row.id) in printed


def test_forget_removes_nobody_if_one_name_is_unknown_or_nobody_confirms(kim):
    with pytest.raises(CommandError, match=r"no account with the user ID nobody\. Nothing was removed"):
        call_command("forget", kim.user_id, "nobody", "--yes")
    with pytest.raises(CommandError, match="--yes"):
        call_command("forget", kim.user_id)
    assert not is_removed(kim)


@pytest.mark.parametrize("typed", ["", "no\n"], ids=["end of input", "no"])
def test_forget_removes_nobody_without_the_answer_yes(kim, monkeypatch, typed):
    terminal = StringIO(typed)
    terminal.isatty = lambda: True
    monkeypatch.setattr("sys.stdin", terminal)
    with pytest.raises(CommandError, match=r"^Nothing was removed\.$"):
        call_command("forget", kim.user_id)
    assert not is_removed(kim)


def test_a_second_removal_is_reported(kim):
    call_command("forget", kim.user_id, "--yes")
    with pytest.raises(CommandError, match="no account"):
        call_command("forget", kim.user_id, "--yes")
