"""Administrators change users: each change reaches every service, and of two concurrent changes the second is
reported."""

import html
import re
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.admin.models import LogEntry
from django.core import mail
from django.test import Client

from authsvc.accounts import user_changes_admin
from authsvc.accounts.profile.forms import ProfileForm
from authsvc.lights import Kind
from authsvc.mail import mail_worker
from authsvc.models import EventTransaction, User
from authsvc.signups.changes import OutdatedError, change_account, remove_account
from authsvc.signups.events import REQUEST_TOPICS
from authsvc.urls import urlpatterns
from eventbus.topics import ensure_topics
from runtime.admin_toolkit import long_action
from tests.integration.test_profile import FORGED
from tests.users import client_of, new_user, user_with
from tests.waiting import eventually

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.needs("broker", "redis")]
LIST = "/admin/authsvc/user/"


@pytest.fixture(autouse=True)
def own_topics(settings) -> None:
    settings.KAFKA_PREFIX = f"user-changes-{uuid4()}-"
    ensure_topics(REQUEST_TOPICS.values())


@pytest.fixture
def kim() -> User:
    return new_user("kim", user_name="Kim")


@pytest.fixture
def root() -> User:
    return new_user("root", is_staff=True, is_superuser=True)


@pytest.fixture
def lee() -> User:
    return new_user("lee", is_staff=True, is_superuser=True)


def changes(user: User) -> list[EventTransaction]:
    found = EventTransaction.objects.filter(kind=Kind.CHANGE, owner_signup_id=user.owner_signup_id)
    return list(found.order_by("record_version"))


def stored(user: User) -> User:
    return User.objects.get(pk=user.pk)


def shown(client: Client, user: User) -> dict[str, Any]:
    """The fields of the page's form."""
    form = client.get(f"{LIST}{user.pk}/change/").context["adminform"].form
    values = {name: form.get_initial_for_field(field, name) for name, field in form.fields.items()}
    return {name: value for name, value in values.items() if value not in (None, False, "") and name != "password"}


def save(client: Client, user: User, fields: dict[str, Any], **changed: Any):
    return client.post(f"{LIST}{user.pk}/change/", {k: v for k, v in (fields | changed).items() if v is not None})


def as_shown(page: str) -> dict[str, str]:
    """The fields of this page, as a browser would send them."""
    found = dict(re.findall(r'<input type="(?:text|hidden|email)" name="(\w+)" value="([^"]*)"', page))
    found |= dict(re.findall(r'<select name="(\w+)".*?<option value="([^"]*)" selected', page, re.DOTALL))
    found |= dict.fromkeys(re.findall(r'<input type="checkbox" name="(\w+)"[^>]* checked', page), "on")
    return {name: html.unescape(value) for name, value in found.items() if name != "csrfmiddlewaretoken"}


def words_of(answer) -> str:
    """The text of the page in one line."""
    return " ".join(html.unescape(re.sub("<[^>]*>", " ", answer.content.decode())).split())


def test_every_synchronised_field_is_saved_as_one_change(kim: User, root: User):
    client = client_of(root)
    fields = shown(client, kim)
    answer = save(
        client, kim, fields, user_id="mina", email="mina@example.org", user_name="Mina", role="ROLE_ADMIN",
        is_active=None,
    )  # fmt: skip
    assert answer.status_code == 302, words_of(answer)
    [change] = changes(kim)
    assert change.changed_fields == "userId email userName role active"
    mina = stored(kim)
    assert (mina.user_id, mina.user_id_key, mina.email, mina.user_name, mina.role, mina.is_active, mina.version) == (
        "mina", "mina", "mina@example.org", "Mina", "ROLE_ADMIN", False, 2,
    )  # fmt: skip
    page = client.get(LIST).content.decode()
    assert f'<a href="/admin/authsvc/eventtransaction/{change.pk}/change/">Watch the services answer</a>' in page
    lights = client.get(f"/admin/authsvc/eventtransaction/{change.pk}/change/")
    assert "light-pending" in lights.content.decode()
    assert "by root, in the admin" in words_of(lights)
    eventually(lambda: mail_worker().waiting == 0)
    assert [each.subject for each in mail.outbox if each.to == [kim.email]] == [
        "Your Signup Sync email address was changed"
    ]


def test_saving_a_field_that_no_service_copies_makes_no_change(kim: User, root: User):
    client = client_of(root)
    assert save(client, kim, shown(client, kim), is_staff="on").status_code == 302
    assert (stored(kim).is_staff, stored(kim).version, changes(kim)) == (True, 1, [])
    assert "Watch the services answer" not in client.get(LIST).content.decode()


def test_only_staff_who_may_see_sign_ups_get_the_link_to_the_lights(kim: User):
    client = client_of(user_with("view_user", "change_user", user_id="staff"))
    assert save(client, kim, shown(client, kim), user_name="New").status_code == 302
    assert len(changes(kim)) == 1
    assert "Watch the services answer" not in client.get(LIST).content.decode()


def test_the_second_of_two_concurrent_administrators_is_notified_and_keeps_the_input(kim: User, root: User, lee: User):
    first, second = client_of(lee), client_of(root)
    opened_by_first, opened_by_second = shown(first, kim), shown(second, kim)
    assert save(first, kim, opened_by_first, role="ROLE_ADMIN", user_name="By Lee").status_code == 302
    answer = save(second, kim, opened_by_second, email="typed@example.org", user_name="Typed")
    assert answer.status_code == 200
    words = words_of(answer)
    assert "This user was changed after you opened this page." in words
    assert re.search(r"lee changed name, role\.", words)
    assert "Now stored: By Lee" in words
    assert "Now stored: Administrator" not in words, "the second left the role alone"
    page = answer.content.decode()
    assert 'value="Typed"' in page
    assert 'value="typed@example.org"' in page
    assert (stored(kim).user_name, stored(kim).email, len(changes(kim))) == ("By Lee", "kim@example.com", 1)

    # The form now has the newest version: saving it again is a deliberate choice, and reverts no field that was not
    # edited.
    assert save(second, kim, as_shown(page)).status_code == 302
    kept = stored(kim)
    assert (kept.user_name, kept.email, kept.role) == ("Typed", "typed@example.org", "ROLE_ADMIN")


def test_saving_an_outdated_form_once_more_does_not_activate_somebody_again(kim: User, root: User, lee: User):
    first, second = client_of(lee), client_of(root)
    opened_by_first, opened_by_second = shown(first, kim), shown(second, kim)
    assert save(first, kim, opened_by_first, is_active=None, email="kim@bücher.example").status_code == 302
    answer = save(second, kim, opened_by_second, user_name="Typed")
    assert "lee changed email address, active." in words_of(answer)
    assert "Now stored" not in words_of(answer)
    assert save(second, kim, as_shown(answer.content.decode())).status_code == 302
    kept = stored(kim)
    assert (kept.user_name, kept.is_active, kept.email) == ("Typed", False, "kim@xn--bcher-kva.example")


def test_a_value_that_both_changed_is_reported_and_kept_as_typed(kim: User, root: User, lee: User):
    first, second = client_of(lee), client_of(root)
    opened_by_first, opened_by_second = shown(first, kim), shown(second, kim)
    save(first, kim, opened_by_first, user_id="mina", role="ROLE_ADMIN", is_active=None)
    answer = save(second, kim, opened_by_second, user_id="other", user_name="Typed")
    assert "Now stored: mina" in words_of(answer)
    assert "Now stored: Kim" not in words_of(answer), "only the second changed the name"
    kept = as_shown(answer.content.decode())
    assert (kept["user_id"], kept["role"], "is_active" in kept) == ("other", "ROLE_ADMIN", False)


def test_a_change_by_the_owner_is_reported_as_such(kim: User, root: User):
    client = client_of(root)
    fields = shown(client, kim)
    client_of(kim).post("/account/", ProfileForm.values_of(kim) | {"user_name": "Own"})
    answer = save(client, kim, fields, is_active=None)
    assert "the account's owner or a command changed name." in words_of(answer)
    assert stored(kim).is_active


@pytest.mark.parametrize("opened", [None, *FORGED])
def test_a_forged_version_changes_nothing(kim: User, root: User, opened: str | None):
    client = client_of(root)
    answer = save(client, kim, shown(client, kim), user_name="Forged", opened=opened)
    assert answer.status_code == 200
    assert (stored(kim).user_name, changes(kim)) == ("Kim", [])


def test_a_user_who_was_removed_meanwhile_is_not_restored(kim: User, root: User):
    client = client_of(root)
    fields = shown(client, kim)
    User.objects.filter(pk=kim.pk).delete()
    assert save(client, kim, fields, user_name="Too late").status_code == 302
    assert not User.objects.filter(user_id="kim").exists()


def test_an_address_that_is_taken_at_the_last_moment_is_an_error_at_its_field(kim: User, root: User, monkeypatch):
    new_user("other")
    # Simulate that the other user is saved only after this check.
    monkeypatch.setattr(User, "validate_constraints", lambda user, exclude=None: monkeypatch.undo())
    client = client_of(root)
    answer = save(client, kim, shown(client, kim), email="other@example.com", user_name="Typed")
    assert answer.status_code == 200
    assert "This email address is taken." in words_of(answer)
    assert 'value="Typed"' in answer.content.decode()
    assert (stored(kim).user_name, changes(kim)) == ("Kim", [])


# --- Activating and deactivating ------------------------------------------------------------------------------------


def act(client: Client, action: str, *users: User, **more: str):
    form = {"action": action, "_selected_action": [user.pk for user in users], **more}
    return client.post(LIST, form, follow=True)


def test_selected_users_are_deactivated_and_activated_each_as_a_change(kim: User, root: User):
    park = new_user("park")
    client = client_of(root)
    assert "2 users were deactivated." in words_of(act(client, "deactivate", kim, park))
    for user in (kim, park):
        assert not stored(user).is_active
        assert [change.changed_fields for change in changes(user)] == ["active"]
        [entry] = LogEntry.objects.filter(object_id=str(changes(user)[0].pk))
        assert entry.user == root
    words = words_of(act(client, "activate", kim))
    assert "1 user was activated." in words
    assert (stored(kim).is_active, stored(kim).version, stored(park).is_active) == (True, 3, False)


def test_users_already_deactivated_or_not_permitted_to_be_changed_are_skipped(kim: User, root: User, lee: User):
    kim.is_active = False
    change_account(kim)
    client = client_of(root)
    assert "0 users were deactivated. 2 users were skipped" in words_of(act(client, "deactivate", kim, root))
    assert stored(root).is_active, "nobody locks out themselves"
    staff = client_of(user_with("view_user", "change_user", user_id="staff"))
    administrator = new_user("administrator", role="ROLE_ADMIN")
    words = words_of(act(staff, "deactivate", lee, root, administrator, new_user("park")))
    assert "1 user was deactivated. 3 users were skipped" in words
    assert (stored(lee).is_active, stored(administrator).is_active) == (True, True)


def test_many_users_are_changed_in_several_requests(root: User, monkeypatch):
    monkeypatch.setattr(long_action, "WORKS_FOR", 0)
    monkeypatch.setattr(user_changes_admin, "PAGE", 2)
    users = [new_user(f"user-{n}") for n in range(5)]
    client = client_of(root)
    answer = act(client, "deactivate", users[0], select_across="1")
    pages = 0
    while 'id="long-action"' in (page := answer.content.decode()):
        pages += 1
        assert f"{2 * pages} of 6 are done." in page
        if pages == 1:
            newcomer = new_user("newcomer")
        hidden = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', page))
        answer = client.post(LIST, hidden, follow=True)
    assert pages == 2
    assert "5 users were deactivated. 1 user was skipped" in words_of(answer)
    assert [stored(user).is_active for user in users] == [False] * 5
    assert (stored(root).is_active, stored(newcomer).is_active) == (True, True)


def test_somebody_who_changes_a_user_meanwhile_does_not_stop_the_action(kim: User, root: User, monkeypatch):
    original = user_changes_admin.change_account

    def late(user: User, **options: Any):
        monkeypatch.undo()
        other = stored(user)
        other.user_name = "Meanwhile"
        change_account(other)
        return original(user, **options)

    monkeypatch.setattr(user_changes_admin, "change_account", late)
    assert "1 user was deactivated." in words_of(act(client_of(root), "deactivate", kim))
    assert (stored(kim).is_active, stored(kim).user_name) == (False, "Meanwhile")


def test_somebody_who_is_changed_and_then_removed_meanwhile_does_not_stop_the_action(
    kim: User, root: User, monkeypatch
):
    def late(user: User, **options: Any):
        monkeypatch.undo()
        remove_account(stored(user))
        raise OutdatedError

    monkeypatch.setattr(user_changes_admin, "change_account", late)
    words = words_of(act(client_of(root), "deactivate", kim, new_user("lee")))
    assert "1 user was deactivated. 1 user was skipped" in words
    assert not User.objects.filter(pk=kim.pk).exists()


# --- A deactivated user ---------------------------------------------------------------------------------------------


def own_pages() -> list[str]:
    """The paths, without parameters, of the pages for those who are logged in."""
    paths = [str(each.pattern) for each in urlpatterns]
    return [f"/{path}" for path in paths if path.startswith("account/") and "<" not in path and "check" not in path]


def test_deactivating_ends_every_session_at_once(kim: User, root: User):
    """On every page of the account, in the administration, and at the API for changes."""
    kim.is_staff = kim.is_superuser = True
    kim.save()
    client = client_of(kim)
    assert len(own_pages()) >= 6
    assert client.get("/account/").status_code == client.get("/admin/").status_code == 200
    act(client_of(root), "deactivate", kim)
    for path in [*own_pages(), "/account/address/x/", "/admin/", LIST]:
        for answer in (client.get(path), client.post(path)):
            assert answer.status_code == 302, path
            assert "login/?next=" in answer["Location"], path
    answer = client.post("/login/", {"username": "kim", "password": "correct horse 9"})
    assert answer.status_code == 200
    assert "Please enter a correct" in words_of(answer)


def test_a_deactivation_without_its_log_entry_is_not_saved(kim: User, root: User, monkeypatch):
    def fail(*_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(user_changes_admin.ChangesUsers, "log_change", fail)
    with pytest.raises(RuntimeError):
        client_of(root).post(LIST, {"action": "deactivate", "_selected_action": kim.pk})
    assert (stored(kim).is_active, changes(kim)) == (True, [])
