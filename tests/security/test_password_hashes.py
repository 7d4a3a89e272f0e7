"""A password's hash is kept by its user. A sign-up has one only for as long as a repeated request needs it."""

import json
from datetime import timedelta
from io import StringIO
from uuid import UUID, uuid4

import pytest
from asgiref.sync import sync_to_async
from asgiref.testing import ApplicationCommunicator
from django.contrib.auth.hashers import check_password, make_password
from django.core.management import call_command
from django.db import connection
from django.test import Client
from django.utils import timezone

from authsvc.accounts.password_mails import _reset_mail
from authsvc.api.application import SignUpApi
from authsvc.management.commands.relay_signups import OutboxRelay
from authsvc.models import SignUp, User
from authsvc.operations.timeline import timeline_of
from authsvc.signups.events import NEW_USER_REQUESTED
from authsvc.signups.retention import erase_expired, expired_signups
from eventbus.topics import ensure_topics
from tests.conftest import Person, new_person
from tests.signups import save_signup

pytestmark = pytest.mark.django_db(transaction=True)

OLD, NEW = "correct horse 9", "quite another w0rd"


def save_aged(user_id: str, *, email: str = "", age: float = 0) -> SignUp:
    """Save a sign-up that began `age` seconds ago."""
    signup = save_signup(user_id, email=email, name=f"Name of {user_id}", password=make_password(OLD))
    SignUp.objects.filter(id=signup.id).update(created_at=timezone.now() - timedelta(seconds=age))
    signup.refresh_from_db()
    return signup


def verifying(password: str) -> set[str]:
    """The user IDs of the sign-ups whose hash matches this password."""
    return {each.user_id for each in SignUp.objects.all() if check_password(password, each.password)}


def test_a_hash_is_erased_when_the_ticket_has_expired_and_not_before(settings):
    save_aged("young", age=settings.TICKET_MAX_AGE - 60)
    save_aged("old", age=settings.TICKET_MAX_AGE + 1)
    assert erase_expired(10) == 1
    assert verifying(OLD) == {"young"}
    assert erase_expired(10) == 0
    # The account itself works as before, and its sign-up still identifies the user.
    assert User.objects.get(user_id="old").check_password(OLD)
    old = SignUp.objects.get(user_id="old")
    assert (old.email, old.user_name) == ("old@example.org", "Name of old")


def test_of_a_refused_sign_up_the_name_and_the_address_are_erased_too(settings):
    save_aged("taken")
    by_user_id = save_aged("TAKEN", email="else@example.com", age=settings.TICKET_MAX_AGE + 1)
    by_email = save_aged("another", email="taken@example.org", age=settings.TICKET_MAX_AGE + 1)
    erase_expired(10)
    for refused in (by_user_id, by_email):
        before = refused.lights
        refused.refresh_from_db()
        assert (refused.password, refused.email, refused.user_name) == ("", "", "")
        assert refused.lights == before


def test_hashes_are_erased_in_batches_the_oldest_first(settings):
    for n in range(5):
        save_aged(f"user-{n}", age=settings.TICKET_MAX_AGE + 10 * (n + 1))
    assert [erase_expired(2), erase_expired(2)] == [2, 2]
    assert verifying(OLD) == {"user-0"}


def test_expired_hashes_are_found_by_a_partial_index():
    plan = expired_signups()[:10].explain()
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SET enable_seqscan = off")
        plan = expired_signups()[:10].explain()
    assert "signup_keeps_hash" in plan


def test_the_relay_erases_expired_hashes(settings):
    save_aged("old", age=settings.TICKET_MAX_AGE + 1)
    relay = OutboxRelay.__new__(OutboxRelay)
    relay._erase_from = 0.0
    relay.erase_expired()
    assert verifying(OLD) == set()


def test_purge_erases_expired_hashes_unless_it_is_a_dry_run(settings):
    save_aged("old", age=settings.TICKET_MAX_AGE + 1)
    call_command("purge", "--dry-run", stdout=StringIO())
    assert verifying(OLD) == {"old"}
    call_command("purge", stdout=StringIO())
    assert verifying(OLD) == set()


# --- A password that is changed -----------------------------------------------------------------------------------


def test_after_a_new_password_no_sign_up_verifies_the_old_one():
    save_aged("owner")
    save_aged("OWNER", email="else@example.com")
    save_aged("forgetful", email="owner@example.org")
    save_aged("somebody-else")
    owner = User.objects.get(user_id="owner")
    owner.set_password(NEW)
    owner.save()
    assert verifying(OLD) == {"somebody-else"}
    assert not User.objects.get(user_id="owner").check_password(OLD)


def test_after_a_new_password_a_refused_sign_up_has_no_name_or_address_and_the_owners_has():
    owners, refused = save_aged("owner"), save_aged("OWNER", email="else@example.com")
    owner = User.objects.get(user_id="owner")
    owner.set_password(NEW)
    owner.save()
    owners.refresh_from_db()
    refused.refresh_from_db()
    assert (refused.password, refused.email, refused.user_name) == ("", "", "")
    assert (owners.password, owners.email, owners.user_name) == ("", "owner@example.org", "Name of owner")


def test_the_account_page_changes_a_password_everywhere():
    save_aged("owner")
    client = Client()
    client.force_login(User.objects.get(user_id="owner"))
    fields = {"old_password": OLD, "new_password1": NEW, "new_password2": NEW}
    assert client.post("/account/password/", fields).status_code == 302
    assert verifying(OLD) == set()


def test_after_the_removal_of_a_password_no_sign_up_verifies_it():
    save_aged("owner")
    client = Client()
    client.force_login(User.objects.create_superuser("root-user", "root@example.com", OLD))
    path = f"/admin/authsvc/user/{User.objects.get(user_id='owner').pk}/password/"
    assert client.post(path, {"usable_password": "false", "unset-password": "1"}).status_code == 302
    assert not User.objects.get(user_id="owner").has_usable_password()
    assert verifying(OLD) == set()
    assert _reset_mail("owner@example.org", None) is None


def test_a_hash_with_new_parameters_is_no_new_password(settings):
    settings.PASSWORD_HASHERS = [
        "authsvc.accounts.passwords.Argon2idHasher",
        "django.contrib.auth.hashers.PBKDF2PasswordHasher",
    ]
    save_aged("owner")
    User.objects.update(password=make_password(OLD, hasher="pbkdf2_sha256"))
    owner = User.objects.get(user_id="owner")
    assert owner.check_password(OLD)
    assert owner.password.startswith("argon2")
    assert verifying(OLD) == {"owner"}


# --- An erased hash ------------------------------------------------------------------------------------------------


@pytest.mark.needs("broker")
def test_an_erased_sign_up_can_still_be_explained_shown_and_replayed(settings):
    settings.KAFKA_PREFIX = f"erased-{uuid4()}-"
    ensure_topics([NEW_USER_REQUESTED])
    save_aged("taken")
    refused = save_aged("another", email="taken@example.org", age=settings.TICKET_MAX_AGE + 1)
    erase_expired(10)
    refused.refresh_from_db()
    assert timeline_of(refused).steps
    out = StringIO()
    call_command("explain", str(refused.id), stdout=out)
    assert "erased" in out.getvalue()
    client = Client()
    client.force_login(User.objects.create_superuser("root-user", "root@example.com", OLD))
    page = client.get(f"/admin/authsvc/eventtransaction/{refused.id}/change/").content.decode()
    assert "erased" in page
    assert "another" in page
    answer = client.post(
        "/admin/authsvc/eventtransaction/",
        {"action": "replay_chosen", "_selected_action": [str(refused.id)]},
        follow=True,
    )
    assert "1 sign-up sent again" in answer.content.decode()


# --- The API ------------------------------------------------------------------------------------------------------


async def posted(person: Person, key: UUID) -> tuple[int, dict]:
    """The answer of `POST /user`."""
    api = SignUpApi()
    headers = {"content-type": "application/json", "idempotency-key": str(key)}
    scope = {
        "type": "http", "method": "POST", "path": "/user",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }  # fmt: skip
    client = ApplicationCommunicator(api, scope)
    await client.send_input({"type": "http.request", "body": json.dumps(person.form).encode(), "more_body": False})
    status = (await client.receive_output(timeout=20))["status"]
    body = (await client.receive_output(timeout=20))["body"]
    await api.close()
    return status, json.loads(body)


@pytest.mark.needs("broker", "redis")
@pytest.mark.parametrize("was_erased", [False, True])
async def test_a_key_is_honoured_while_its_ticket_is_valid_and_refused_with_a_message_later(settings, was_erased):
    person, key = new_person(), uuid4()
    assert (await posted(person, key))[0] == 202
    assert (await posted(person, key))[0] == 202

    def grow_old() -> None:
        SignUp.objects.update(created_at=timezone.now() - timedelta(seconds=settings.TICKET_MAX_AGE + 1))
        if was_erased:
            assert erase_expired(10) == 1

    await sync_to_async(grow_old)()
    status, problem = await posted(person, key)
    assert status == 409
    assert problem["type"] == "/problems/key-expired"
    assert "too old to be repeated" in problem["detail"]


@pytest.mark.needs("broker", "redis")
async def test_after_a_new_password_the_key_is_refused(settings):
    person, key = new_person(), uuid4()
    await posted(person, key)

    def change() -> None:
        user = User.objects.get()
        user.set_password(NEW)
        user.save()

    await sync_to_async(change)()
    assert (await posted(person, key))[0] == 409
