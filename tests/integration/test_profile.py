"""Owners change their name and email address on the account page."""

import html
import re
from contextlib import suppress
from uuid import uuid4

import pytest
from django.contrib.auth.hashers import make_password
from django.core import mail
from django.core.mail import EmailMessage
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from authsvc.accounts.change_redirect import CHANGE_COOKIE
from authsvc.accounts.profile import address_links
from authsvc.accounts.profile.forms import ProfileForm
from authsvc.lights import Kind
from authsvc.mail import mail_worker
from authsvc.models import EventTransaction, SignUp, User
from authsvc.rate_limits import TooManyError, attempt_limits
from authsvc.signups import confirmation
from authsvc.signups.changes import change_account, remove_account
from authsvc.signups.events import REQUEST_TOPICS
from authsvc.signups.registration import NewSignUp, register_users
from authsvc.tickets import opens
from eventbus.topics import ensure_topics
from tests.users import client_of
from tests.waiting import eventually

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.needs("broker")]

PASSWORD = "correct horse 9"
MINE, NEW = "kim@example.org", "mina@example.org"


@pytest.fixture(autouse=True)
def surroundings(settings) -> None:
    settings.KAFKA_PREFIX = f"profile-{uuid4()}-"
    settings.RATE_LIMIT_CONFIRM = settings.RATE_LIMIT_PASSWORD = settings.RATE_LIMIT_FAILED_LOGIN = 0
    settings.PUBLIC_URL = "https://signup.example.org"
    settings.ALLOWED_HOSTS = ["*"]
    ensure_topics(REQUEST_TOPICS.values())


@pytest.fixture
def confirmed(settings) -> None:
    """New addresses have to be confirmed."""
    settings.SIGNUP_CONFIRM = "mail"


def sign_up(user_id: str, email: str) -> User:
    new = NewSignUp(
        signup_id=uuid4(),
        user_id=user_id,
        email=email,
        user_name="Kim",
        role="ROLE_USER",
        password=make_password(PASSWORD),
    )
    register_users([new])
    return User.objects.get(owner_signup_id=new.signup_id)


@pytest.fixture
def kim() -> User:
    return sign_up("kim", MINE)


def stored(user: User) -> User:
    return User.objects.get(pk=user.pk)


def changes() -> list[EventTransaction]:
    return list(EventTransaction.objects.filter(kind=Kind.CHANGE).order_by("record_version"))


def save(client: Client, user: User, **fields: str):
    """Submit the form as the page shows it, with these fields changed."""
    shown = ProfileForm.values_of(user) | {"password": ""}
    return client.post("/account/", shown | fields)


def opened_in(page: str) -> str:
    """The form's hidden field with the version and the values that it shows."""
    [value] = re.findall(r'name="opened" value="([^"]*)"', page)
    return html.unescape(value)


def error_at(answer, field: str) -> str:
    [text] = re.findall(
        rf'data-field="{field}".*?<p class="field-error"[^>]*>([^<]*)</p>', answer.content.decode(), re.S
    )
    return text


def summary(answer) -> str:
    [text] = re.findall(r'id="error-summary".*?<ul>(.*?)</ul>', answer.content.decode(), re.S)
    return text


def mails(to: str) -> list[EmailMessage]:
    """All mails to this address, once the queue is empty."""
    eventually(lambda: mail_worker().waiting == 0)
    return [each for each in mail.outbox if each.to == [to]]


def path_in(sent: EmailMessage) -> str:
    [path] = re.findall(r"https://signup\.example\.org(/account/address/\S+)", sent.body)
    return path


def ask_for_link(user: User) -> str:
    """Request the address NEW, and return the path of the mailed link."""
    assert save(client_of(user), user, email=NEW, password=PASSWORD).status_code == 302
    return path_in(mails(NEW)[-1])


# --- Without confirmation -------------------------------------------------------------------------------------------


def test_the_form_shows_the_present_values(kim: User):
    page = client_of(kim).get("/account/").content.decode()
    assert opened_in(page) == ProfileForm.values_of(kim)["opened"]
    assert 'name="user_name" value="Kim"' in page
    assert f'name="email" value="{MINE}"' in page


def test_a_new_name_is_a_change_with_its_lights(kim: User):
    answer = save(client_of(kim), kim, user_name="  Mina Kim ")
    [change] = changes()
    assert (answer.status_code, answer["Location"]) == (302, f"/changes/{change.id}/")
    cookie = answer.cookies[CHANGE_COOKIE]
    assert opens(cookie.value, change.id)
    assert (cookie["path"], cookie["httponly"]) == ("/", True)
    assert (change.changed_fields, change.owner_signup_id) == ("userName", kim.owner_signup_id)
    assert (stored(kim).user_name, stored(kim).version) == ("Mina Kim", 2)


def test_a_new_address_applies_at_once_and_the_former_one_is_notified(kim: User):
    save(client_of(kim), kim, email="Mina@Example.ORG", password=PASSWORD)
    assert [change.changed_fields for change in changes()] == ["email"]
    assert stored(kim).email == NEW
    [told] = mails(MINE)
    assert told.subject == "Your Signup Sync email address was changed"
    assert "mina" not in told.body.lower()


@pytest.mark.parametrize(
    ("password", "words"),
    [("", "Enter your password to change the email address."), ("wrong", "This password is wrong.")],
)
def test_a_new_address_requires_the_password(kim: User, password: str, words: str):
    answer = save(client_of(kim), kim, email=NEW, password=password)
    assert (answer.status_code, error_at(answer, "password")) == (200, words)
    assert f'value="{NEW}"' in answer.content.decode(), "what was typed is kept"
    assert changes() == []


def test_wrong_passwords_are_limited_as_at_the_login(kim: User, settings):
    settings.RATE_LIMIT_FAILED_LOGIN = 2
    client = client_of(kim)
    answers = [save(client, kim, email=NEW, password="wrong").status_code for _ in range(3)]
    assert answers == [200, 200, 429]
    assert save(client, kim, email=NEW, password=PASSWORD).status_code == 429
    assert save(client, kim, user_name="New name").status_code == 302


def test_a_taken_address_is_an_error_at_its_field(kim: User):
    sign_up("lee", NEW)
    answer = save(client_of(kim), kim, user_name="New name", email=NEW, password=PASSWORD)
    assert error_at(answer, "email") == "This email address is taken."
    assert 'value="New name"' in answer.content.decode()
    assert (changes(), stored(kim).user_name, stored(kim).version) == ([], "Kim", 1)


@pytest.mark.parametrize(
    ("field", "text", "words"),
    [
        ("email", "nowhere", "Enter a valid email address."),
        ("email", "", "Enter an email address."),
        ("email", f"{'a' * 65}@example.org", "Enter a valid email address."),
        ("user_name", " ", "Enter a name."),
        ("user_name", "A\u200bB", "Do not use invisible characters."),
        ("user_name", "a" * 101, "Ensure this value has at most 100 characters (it has 101)."),
    ],
)
def test_the_fields_have_the_rules_of_a_sign_up(kim: User, field: str, text: str, words: str):
    answer = save(client_of(kim), kim, **{field: text, "password": PASSWORD})
    assert error_at(answer, field) == words
    assert changes() == []


def test_a_value_stored_before_a_rule_does_not_prevent_other_changes(kim: User):
    User._base_manager.filter(pk=kim.pk).update(user_name="A\u200bB")
    assert save(client_of(kim), stored(kim), email=NEW, password=PASSWORD).status_code == 302
    assert stored(kim).email == NEW


@pytest.mark.parametrize("fields", [{}, {"email": "KIM@EXAMPLE.ORG"}, {"user_name": " Kim "}, {"password": "wrong"}])
def test_saving_unchanged_values_makes_no_change(kim: User, fields: dict[str, str]):
    client = client_of(kim)
    answer = save(client, kim, **fields)
    assert (answer.status_code, answer["Location"]) == (302, "/account/")
    assert "You changed nothing, so nothing was saved." in client.get("/account/").content.decode()
    assert (changes(), stored(kim).version) == ([], 1)


def test_the_second_of_two_tabs_is_notified_and_keeps_its_input(kim: User):
    client = client_of(kim)
    assert save(client, kim, user_name="First").status_code == 302
    answer = save(client, kim, user_name="Second")
    assert answer.status_code == 200
    assert "It now has the name “First” and the address kim@example.org." in summary(answer)
    page = answer.content.decode()
    assert 'name="user_name" value="Second"' in page
    assert (len(changes()), stored(kim).user_name) == (1, "First")
    # The page now has the newest version, so saving once more is a deliberate choice.
    assert opened_in(page) == ProfileForm.values_of(stored(kim))["opened"]
    assert save(client, stored(kim), user_name="Second").status_code == 302
    assert stored(kim).user_name == "Second"


def test_an_outdated_form_adopts_new_values_of_fields_that_its_user_did_not_edit(kim: User):
    """Otherwise saving once more would revert the change of the address."""
    client = client_of(kim)
    assert save(client, kim, email=NEW, password=PASSWORD).status_code == 302
    page = save(client, kim, user_name="Second").content.decode()
    assert 'name="user_name" value="Second"' in page
    assert f'name="email" value="{NEW}"' in page


FORGED = ["", "x", "1", "[]", '{"version":2}', '{"version":"1"}', '{"version":1e99}', '{"values":[]}', "[" * 3000]


@pytest.mark.parametrize("opened", FORGED)
def test_a_forged_version_changes_nothing(kim: User, opened: str):
    answer = save(client_of(kim), kim, user_name="Forged", opened=opened)
    assert "Your account was changed after you opened this page" in summary(answer)
    assert changes() == []


def test_a_change_between_the_check_and_the_save_is_found(kim: User, monkeypatch):
    def late(form: ProfileForm):
        administrators = stored(kim)
        administrators.user_name = "Administrator's"
        change_account(administrators)
        return original(form)

    original = ProfileForm.save
    monkeypatch.setattr(ProfileForm, "save", late)
    answer = save(client_of(kim), kim, user_name="Second")
    assert "It now has the name “Administrator&#x27;s”" in summary(answer)
    assert stored(kim).user_name == "Administrator's"


def test_a_change_to_an_account_that_is_removed_meanwhile_logs_out(kim: User, monkeypatch):
    def late(form: ProfileForm):
        remove_account(stored(kim))
        return original(form)

    original = ProfileForm.save
    monkeypatch.setattr(ProfileForm, "save", late)
    client = client_of(kim)
    answer = save(client, kim, user_name="Too late")
    assert (answer.status_code, answer["Location"]) == (302, "/login/")
    assert changes() == []
    assert not User.objects.exists()
    assert client.get("/account/").status_code == 302


def test_the_account_shows_the_lights_of_its_newest_change(kim: User):
    client = client_of(kim)
    page = client.get("/account/").content.decode()
    assert "Your last change in each service" not in page
    for name in ("First", "Second"):
        kim.user_name = name
        change = change_account(kim)
    SignUp.objects.filter(owner_signup_id=kim.owner_signup_id).update(pending_count=0)
    page = client.get("/account/").content.decode()
    [lights] = re.findall(r'id="change-lights">(.*?)</ul>', page, re.S)
    assert re.findall(r'data-service="(\w+)" data-status="(\w+)"', lights) == [
        ("auth", "SUCCESS"), ("chat", "PENDING"), ("customer", "PENDING"),
    ]  # fmt: skip
    assert change is not None
    assert f'href="/changes/{change.id}/"' in page
    assert "Your last change in each service" not in client_of(sign_up("lee", NEW)).get("/account/").content.decode()


def test_switching_the_language_keeps_the_input_and_saves_nothing(kim: User):
    answer = save(client_of(kim), kim, user_name="Typed", language="ko", password=PASSWORD)
    page = answer.content.decode()
    assert 'name="user_name" value="Typed"' in page
    assert opened_in(page) == ProfileForm.values_of(kim)["opened"]
    assert PASSWORD not in page
    assert '<html lang="ko">' in page
    assert changes() == []


# --- With confirmation ----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("confirmed")
def test_a_new_address_is_used_once_its_link_was_opened(kim: User):
    client = client_of(kim)
    answer = save(client, kim, email=NEW, password=PASSWORD)
    assert (answer.status_code, answer["Location"]) == (302, "/account/")
    assert f"We sent a message to {NEW}." in client.get("/account/").content.decode()
    assert (changes(), stored(kim).email) == ([], MINE)
    [sent] = mails(NEW)
    [notice] = mails(MINE)
    assert notice.subject == "A new email address was requested for your Signup Sync account"
    assert "https://signup.example.org/password/" in notice.body
    for each in (sent, notice):
        assert not re.search("kim|mina", each.body.replace(path_in(sent), ""), re.IGNORECASE), "it quotes nobody"

    page = client.get(path_in(sent))
    assert NEW in page.content.decode()
    assert "no-store" in page["Cache-Control"]
    assert (changes(), stored(kim).email) == ([], MINE), "mail programs open links too"
    answer = client.post(path_in(sent))
    [change] = changes()
    assert (answer.status_code, answer["Location"]) == (302, f"/changes/{change.id}/")
    assert (stored(kim).email, change.changed_fields) == (NEW, "email")
    assert [each.subject for each in mails(MINE)][1:] == ["Your Signup Sync email address was changed"]
    # The link works once.
    assert client.post(path_in(sent)).status_code == 410
    assert len(changes()) == 1


@pytest.mark.usefixtures("confirmed")
def test_a_new_name_applies_at_once_while_the_address_waits(kim: User):
    save(client_of(kim), kim, user_name="Mina Kim", email=NEW, password=PASSWORD)
    assert [change.changed_fields for change in changes()] == ["userName"]
    assert (stored(kim).user_name, stored(kim).email) == ("Mina Kim", MINE)
    assert client_of(kim).post(path_in(mails(NEW)[0])).status_code == 302
    assert [change.changed_fields for change in changes()] == ["userName", "email"]
    assert stored(kim).email == NEW


@pytest.mark.usefixtures("confirmed")
def test_a_taken_address_is_answered_like_a_free_one(kim: User):
    sign_up("lee", NEW)
    free, taken = ({"email": email, "password": PASSWORD} for email in ("free@example.org", NEW))
    answers = []
    for fields in (free, taken):
        client = client_of(kim)
        answer = save(client, kim, **fields)
        page = client.get("/account/").content.decode().replace(fields["email"], "ADDRESS")
        answers.append((answer.status_code, answer["Location"], re.sub(r'csrfmiddlewaretoken" value="\w+"', "", page)))
    assert answers[0] == answers[1]
    [sent] = mails(NEW)
    assert sent.subject == "You already have a Signup Sync account"
    assert "/account/address/" not in sent.body
    assert len(mails("free@example.org")) == 1


@pytest.mark.usefixtures("confirmed")
def test_a_request_looks_up_nobody(kim: User):
    """Neither the answer nor its time may depend on whether the address has an account."""
    sign_up("lee", NEW)
    counts = []
    for email in ("free@example.org", NEW):
        client = client_of(kim)
        with CaptureQueriesContext(connection) as queries:
            save(client, kim, email=email, password=PASSWORD)
        counts.append([query["sql"] for query in queries])
        assert not any(email in sql for sql in counts[-1])
    assert len(counts[0]) == len(counts[1])


@pytest.mark.usefixtures("confirmed")
def test_an_address_that_was_taken_meanwhile_is_refused(kim: User):
    path = ask_for_link(kim)
    sign_up("lee", NEW)
    answer = client_of(kim).post(path)
    assert answer.status_code == 409
    assert "Another account has started to use this address" in answer.content.decode()
    assert (changes(), stored(kim).email) == ([], MINE)


@pytest.mark.usefixtures("confirmed")
def test_only_the_accounts_own_session_can_use_the_link(kim: User):
    """Entering somebody else's address gains nothing, even if its owner opens the link."""
    path = ask_for_link(kim)
    answer = Client().post(path)
    assert (answer.status_code, answer["Location"].partition("?")[0]) == (302, "/login/")
    victim = client_of(sign_up("victim", "victim@example.org"))
    for answer in (victim.get(path), victim.post(path)):
        assert answer.status_code == 410
        assert "This link belongs to another account" in answer.content.decode()
        assert NEW not in answer.content.decode()
    assert changes() == []
    # After a login with the password, it works on another device.
    elsewhere = Client()
    login = elsewhere.get(path, follow=True)
    answer = elsewhere.post("/login/", {"username": "kim", "password": PASSWORD, "next": login.context["next"]})
    assert answer["Location"] == path
    assert elsewhere.post(path).status_code == 302
    assert stored(kim).email == NEW


def with_new_password(user: User) -> None:
    user.set_password("quite another w0rd")
    user.save()


def with_new_name(user: User) -> None:
    user.user_name = "Another"
    change_account(user)


def with_new_version(user: User) -> None:
    for active in (False, True):
        user.is_active = active
        change_account(user)


@pytest.mark.usefixtures("confirmed")
@pytest.mark.parametrize("change", [with_new_password, with_new_name, with_new_version])
def test_a_link_from_before_a_change_or_a_new_password_no_longer_works(kim: User, change):
    """An owner who gets an account back from an intruder by choosing a new password also stops the intruder's link."""
    path = ask_for_link(kim)
    change(stored(kim))
    client = client_of(stored(kim))
    for answer in (client.get(path), client.post(path)):
        assert answer.status_code == 410
        assert "This link no longer works" in answer.content.decode()
    assert stored(kim).email == MINE


@pytest.mark.usefixtures("confirmed")
def test_a_link_expires_and_cannot_be_altered(kim: User, monkeypatch):
    path = ask_for_link(kim)
    client = client_of(kim)
    for wrong in (path[:-2] + "/", path.replace(path[20:24], "AAAA"), "/account/address/x/", "/account/address/%00/"):
        assert client.post(wrong).status_code == 410
    monkeypatch.setattr(address_links, "VALID_FOR", -1)
    assert client.post(path).status_code == 410
    monkeypatch.undo()
    assert client.get(path).status_code == 200


@pytest.mark.usefixtures("confirmed")
def test_a_mailbox_gets_no_more_mails_than_at_a_sign_up(kim: User, settings):
    settings.RATE_LIMIT_CONFIRM = 2
    for _ in range(4):
        save(client_of(kim), kim, email=NEW, password=PASSWORD)
    assert (len(mails(NEW)), len(mails(MINE))) == (2, 2)


@pytest.mark.usefixtures("confirmed")
def test_strangers_cannot_use_up_the_notices_of_the_present_address(kim: User, settings):
    settings.RATE_LIMIT_CONFIRM = 1
    with suppress(TooManyError):
        for number in range(10):
            attempt_limits().count_mail("confirm", email=MINE, address=f"198.51.100.{number}")
    save(client_of(kim), kim, email=NEW, password=PASSWORD)
    assert len(mails(MINE)) == 1


@pytest.mark.usefixtures("confirmed")
def test_requests_are_limited_like_password_reset_requests(kim: User, settings):
    settings.RATE_LIMIT_PASSWORD = 2
    client = client_of(kim)
    answers = [save(client, kim, email=NEW, password=PASSWORD).status_code for _ in range(3)]
    assert answers == [302, 302, 429]
    assert save(client, kim, user_name="New name").status_code == 302


@pytest.mark.parametrize(
    ("setting", "has_server", "is_confirmed"),
    [("none", False, False), ("mail", False, True), ("none", True, True), ("mail", True, True)],
)
def test_addresses_are_confirmed_wherever_mails_reach_people(settings, setting, has_server, is_confirmed):
    settings.SIGNUP_CONFIRM, settings.HAS_MAIL_SERVER = setting, has_server
    assert confirmation.can_mail()
    assert address_links.must_be_confirmed() is is_confirmed
