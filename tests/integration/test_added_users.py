"""Users whom an administrator or a command adds: each has a sign-up with lights, as if the user had signed up."""

from collections.abc import Callable
from io import StringIO
from typing import Any
from unittest import mock

import pytest
from django.contrib.auth.models import Permission
from django.core.management import call_command
from django.db import IntegrityError, transaction
from django.test import Client
from django.utils.translation import gettext as _
from django.utils.translation import override

from authsvc.models import SignUp, User
from authsvc.signups.outbox import claim_due
from tests.users import PASSWORD, client_of

pytestmark = pytest.mark.django_db(transaction=True)

NAMES = {"user_id": "mina.k", "email": "mina@example.org"}
ADD = "/admin/authsvc/user/add/"


def form(**fields: str) -> dict[str, str]:
    return {
        **NAMES, "user_name": "Mina Kim", "role": "ROLE_USER", "password1": PASSWORD, "password2": PASSWORD,
        "usable_password": "true", **fields,
    }  # fmt: skip


@pytest.fixture
def root() -> Client:
    """A superuser whose own sign-up is gone."""
    client = client_of(User.objects.create_superuser("root-user", "root@example.com", PASSWORD))
    SignUp.objects.all().delete()
    return client


def by_the_admins_add_page() -> None:
    staff = User.objects.create_superuser("root-user", "root@example.com", PASSWORD)
    SignUp.objects.all().delete()
    assert client_of(staff).post(ADD, form()).status_code == 302


def by_make_admin() -> None:
    named = {"ADMIN_USER_ID": NAMES["user_id"], "ADMIN_EMAIL": NAMES["email"], "ADMIN_PASSWORD": PASSWORD}
    with mock.patch.dict("os.environ", named):
        call_command("make_admin", stdout=StringIO())


def by_createsuperuser() -> None:
    with mock.patch.dict("os.environ", {"DJANGO_SUPERUSER_PASSWORD": PASSWORD}):
        call_command("createsuperuser", interactive=False, verbosity=0, **NAMES)


def by_create_user() -> None:
    User.objects.create_user(**NAMES, password=PASSWORD)


@pytest.mark.parametrize("add", [by_the_admins_add_page, by_make_admin, by_createsuperuser, by_create_user])
def test_every_way_to_add_a_user_makes_a_sign_up_that_the_relay_publishes_at_once(add: Callable[[], Any], settings):
    # No Kafka is needed to add a user.
    settings.KAFKA_BOOTSTRAP_SERVERS = "127.0.0.1:1"
    add()
    user = User.objects.get(user_id_key="mina.k")
    signup = SignUp.objects.get()
    assert (signup.id, signup.owner_signup_id) == (user.owner_signup_id, user.owner_signup_id)
    assert (signup.user_id, signup.email, signup.user_name) == ("mina.k", "mina@example.org", user.user_name)
    assert {name: light.status for name, light in signup.state.lights.items()} == {
        "auth": "SUCCESS", "chat": "PENDING", "customer": "PENDING",
    }  # fmt: skip
    [event] = claim_due(limit=10)
    assert (event.transaction.id, event.attempt) == (signup.id, 1)
    # Nobody can repeat this sign-up, so no second copy of the hash is kept (docs/adr/0040).
    assert signup.password == ""
    assert user.check_password(PASSWORD)


def test_saving_a_user_again_makes_no_second_sign_up(root):
    root.post(ADD, form())
    user = User.objects.get(user_id_key="mina.k")
    user.set_password("another horse 9")
    user.save()
    assert SignUp.objects.count() == 1


def test_a_user_that_cannot_be_saved_leaves_no_sign_up():
    User.objects.create_user(**NAMES, password=PASSWORD)
    with pytest.raises(IntegrityError), transaction.atomic():
        User(user_id="other", email=NAMES["email"], user_name="Other").save()
    assert SignUp.objects.count() == User.objects.count() == 1


@pytest.mark.parametrize("language", ["en", "ko"])
def test_after_saving_the_administrator_sees_the_lights(root, language: str):
    page = root.post(ADD, form(), follow=True, headers={"accept-language": language})
    [(path, _status)] = page.redirect_chain
    assert path == f"/admin/authsvc/eventtransaction/{SignUp.objects.get().id}/change/"
    shown = page.content.decode()
    assert "✓ auth" in shown
    assert "◌ chat" in shown
    with override(language):
        said = _("The user “%(user)s” was added. The lights show which services have the account.")
    assert said % {"user": "mina.k"} in shown


def test_staff_without_permission_for_the_lights_are_redirected_to_the_user():
    staff = User.objects.create_user("staff", "staff@example.com", PASSWORD, is_staff=True)
    staff.user_permissions.set(Permission.objects.filter(codename__in=["add_user", "change_user", "view_user"]))
    page = client_of(staff).post(ADD, form(), follow=True)
    user = User.objects.get(user_id_key="mina.k")
    assert page.redirect_chain[0][0] == f"/admin/authsvc/user/{user.pk}/change/"
    assert page.status_code == 200


@pytest.mark.parametrize(("button", "path"), [("_addanother", ADD), ("_continue", "/admin/authsvc/user/")])
def test_the_other_buttons_lead_where_they_say(root, button: str, path: str):
    page = root.post(ADD, form(**{button: "1"}))
    assert page["Location"].startswith(path)
