"""Only superusers grant privileges and edit staff accounts; no other request by staff has that effect."""

import logging
from typing import Any

import pytest
from django.contrib.auth.models import Group, Permission
from django.core.management import call_command
from django.urls import reverse

from authsvc.models import User
from participant.admin import ParticipantUserForm
from runtime.opened_forms import opened_now
from runtime.security_log import operator
from tests.participants import MODELS
from tests.security.staff import CHANGE, SUPER, VIEW, person_of, rows
from tests.users import PASSWORD, client_of, new_user, user_with

pytestmark = pytest.mark.django_db(transaction=True, databases="__all__")

NEW = "quite another w0rd"
ADD = "/admin/authsvc/user/add/"
PRIVILEGES = ("is_staff", "is_superuser", "groups", "user_permissions")


def page(user: User, name: str = "change") -> str:
    return reverse("admin:auth_user_password_change" if name == "password" else f"admin:authsvc_user_{name}",
                   args=[user.pk])  # fmt: skip


def form_of(user: User, **fields: Any) -> dict[str, Any]:
    return {
        "user_id": user.user_id, "email": user.email, "user_name": user.user_name, "role": user.role,
        "is_active": "on", "opened": opened_now(user, list(User.SYNCHRONISED)),
    } | fields  # fmt: skip


def new_form(user_id: str, **fields: Any) -> dict[str, Any]:
    return {
        "user_id": user_id, "email": f"{user_id}@example.com", "user_name": "New", "role": "ROLE_USER",
        "usable_password": "true", "password1": PASSWORD, "password2": PASSWORD,
    } | fields  # fmt: skip


def asked_for(name: str) -> Any:
    """The form fields that grant this privilege."""
    return {
        "groups": lambda: [Group.objects.create(name="granted").pk],
        "user_permissions": lambda: [Permission.objects.get(codename="add_admin").pk],
    }.get(name, lambda: "on")()


def state(user: User) -> tuple[Any, ...]:
    user = User.objects.get(pk=user.pk)
    permissions = sorted(user.user_permissions.values_list("codename", flat=True))
    return (
        user.user_id, user.email, user.role, user.is_active, user.is_staff, user.is_superuser, user.password,
        sorted(user.groups.values_list("name", flat=True)), permissions,
    )  # fmt: skip


@pytest.fixture
def events(caplog):
    """The security events so far, as (event, actor, subject, detail)."""
    caplog.set_level(logging.INFO, logger="security")
    members = ("actor", "subject", "detail")

    def read() -> list[tuple[str, ...]]:
        lines = [each for each in caplog.records if each.name == "security" and "privilege" in each.getMessage()]
        return [(each.getMessage(), *(getattr(each, name, "") for name in members)) for each in lines]

    return read


# --- Granting -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PRIVILEGES)
def test_staff_who_may_change_users_grant_nothing_neither_to_others_nor_to_themselves(name, events):
    plain = rows()["authsvc_user"]
    staff = person_of(CHANGE)
    client = client_of(staff)
    for user in (plain, staff):
        before = state(user)
        answer = client.post(page(user), form_of(user, **{name: asked_for(name) if user is plain else "on"}))
        assert answer.status_code == 403
        assert state(user) == before
    assert events()[0] == ("privilege_refused", "change-staff", f"authsvc.User {plain.pk}", name)


@pytest.mark.parametrize("name", PRIVILEGES)
def test_superusers_grant_privileges_and_every_grant_is_logged(name, events):
    plain = rows()["authsvc_user"]
    before = state(plain)
    answer = client_of(person_of(SUPER)).post(page(plain), form_of(plain, **{name: asked_for(name)}))
    assert answer.status_code == 302
    assert state(plain) != before
    detail = {"groups": "groups: granted", "user_permissions": "user_permissions: authsvc.add_admin"}.get(name, name)
    assert events() == [("privilege_granted", "super-staff", "plain-user", detail)]


def test_staff_who_may_add_users_add_only_users_without_privileges(events):
    client = client_of(person_of(CHANGE))
    assert client.post(ADD, new_form("made-plain")).status_code == 302
    for number, extra in enumerate([{name: "on"} for name in PRIVILEGES] + [{"role": "ROLE_ADMIN"}]):
        assert client.post(ADD, new_form(f"made-{number}", **extra)).status_code == 403, extra
    [made] = User.objects.filter(user_id__startswith="made")
    assert (made.is_staff, made.is_superuser, made.role) == (False, False, "ROLE_USER")
    assert [event for event, *_rest in events()] == ["privilege_refused"] * 5


@pytest.mark.parametrize("has_it", [False, True])
def test_role_admin_requires_add_admin(has_it, events):
    of_admin = ["add_admin"] if has_it else []
    client = client_of(user_with("view_user", "add_user", "change_user", *of_admin, user_id="adder"))
    plain = rows()["authsvc_user"]
    added = client.post(ADD, new_form("made-admin", role="ROLE_ADMIN")).status_code
    changed = client.post(page(plain), form_of(plain, role="ROLE_ADMIN")).status_code
    plain.refresh_from_db()
    made = User.objects.filter(user_id="made-admin").values_list("role", flat=True).first()
    # A holder of add_admin creates administrators, but no staff.
    assert not User.objects.filter(user_id="made-admin", is_staff=True).exists()
    if has_it:
        assert (added, changed, made, plain.role) == (302, 302, "ROLE_ADMIN", "ROLE_ADMIN")
        assert events() == [
            ("privilege_granted", "adder", "made-admin", "role: ROLE_ADMIN"),
            ("privilege_granted", "adder", "plain-user", "role: ROLE_ADMIN"),
        ]
    else:
        assert (added, changed, made, plain.role) == (403, 403, None, "ROLE_USER")
        assert [(event, detail) for event, _actor, _subject, detail in events()] == [("privilege_refused", "role")] * 2
        assert "ROLE_ADMIN" not in client.get(ADD).content.decode()


def test_make_admin_logs_the_new_administrator(events, monkeypatch):
    for name, text in (("USER_ID", "shell-admin"), ("EMAIL", "shell@example.com"), ("PASSWORD", PASSWORD)):
        monkeypatch.setenv(f"ADMIN_{name}", text)
    call_command("make_admin")
    assert events() == [("privilege_granted", operator(), "shell-admin", "is_staff, is_superuser")]


def test_groups_are_changed_by_superusers_only(events):
    group = rows()["auth_group"]
    permission = Permission.objects.get(codename="add_admin")
    form = {"name": "renamed", "permissions": [permission.pk]}
    change, delete = (reverse(f"admin:auth_group_{each}", args=[group.pk]) for each in ("change", "delete"))
    client = client_of(person_of(CHANGE))
    renamed = {"name": "renamed"}
    for path, body in (
        (change, form),
        (change, renamed),
        ("/admin/auth/group/add/", form | {"name": "own"}),
        (delete, {"post": "yes"}),
    ):
        assert client.post(path, body).status_code == 403
    chosen = {"action": "delete_selected", "_selected_action": [group.pk], "post": "yes"}
    assert client.post("/admin/auth/group/", chosen).status_code == 403
    assert list(Group.objects.values_list("name", "permissions")) == [("group", None)]
    assert client_of(person_of(SUPER)).post(change, form).status_code == 302
    assert events()[-1] == ("privilege_granted", "super-staff", "renamed", "permissions: authsvc.add_admin")


# --- Accounts of staff --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["staff", "superuser", "administrator"])
def test_staff_who_may_change_users_cannot_take_over_a_privileged_account(which):
    user = rows()[f"authsvc_user@{which}"]
    before = state(user)
    client = client_of(person_of(CHANGE))
    password = {"usable_password": "true", "password1": NEW, "password2": NEW}
    assert client.get(page(user)).status_code == 200
    assert client.get(page(user, "password")).status_code == 403
    for path, body in (
        (page(user), form_of(user, email="mine@example.com")),
        (page(user), form_of(user, is_active="")),
        (page(user, "password"), password),
        (page(user, "password"), {"usable_password": "false", "unset-password": "1"}),
        (page(user, "delete"), {"post": "yes"}),
    ):
        assert client.post(path, body).status_code == 403, path
    assert state(user) == before


def test_a_bulk_deletion_that_includes_a_privileged_account_is_refused():
    plain, staff = (rows_ := rows())["authsvc_user"], rows_["authsvc_user@staff"]
    chosen = {"action": "delete_selected", "_selected_action": [plain.pk, staff.pk], "post": "yes"}
    client = client_of(person_of(CHANGE))
    assert client.post("/admin/authsvc/user/", chosen).status_code == 403
    across = chosen | {"_selected_action": [plain.pk], "select_across": "1"}
    assert client.post("/admin/authsvc/user/", across).status_code == 403
    assert User.objects.filter(pk__in=[plain.pk, staff.pk]).count() == 2
    assert client.post("/admin/authsvc/user/", chosen | {"_selected_action": [plain.pk]}).status_code == 302
    assert not User.objects.filter(pk=plain.pk).exists()


def test_staff_cannot_change_their_own_account_in_the_admin():
    staff = person_of(CHANGE)
    before = state(staff)
    client = client_of(staff)
    assert client.post(page(staff), form_of(staff, email="other@example.com")).status_code == 403
    assert client.post(page(staff, "password"), {"password1": NEW, "password2": NEW}).status_code == 403
    assert state(staff) == before


def test_staff_who_may_change_users_change_users_without_privileges():
    plain = rows()["authsvc_user"]
    client = client_of(person_of(CHANGE))
    assert client.post(page(plain), form_of(plain, user_name="Renamed")).status_code == 302
    password = {"usable_password": "true", "password1": NEW, "password2": NEW}
    assert client.post(page(plain, "password"), password).status_code == 302
    plain.refresh_from_db()
    assert plain.user_name == "Renamed"
    assert plain.check_password(NEW)


def test_staff_with_add_admin_edit_administrators_who_are_no_staff():
    administrator = rows()["authsvc_user@administrator"]
    client = client_of(user_with("view_user", "change_user", "add_admin", user_id="adder"))
    assert client.post(page(administrator), form_of(administrator, user_name="Renamed")).status_code == 302
    User.objects.filter(pk=administrator.pk).update(is_staff=True)
    assert client.post(page(administrator), form_of(administrator, user_name="Again")).status_code == 403


# --- Copies at the services -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS.values())
def test_the_role_of_a_copy_is_set_by_superusers_only(model, events):
    rows()
    copy = model.objects.get()
    label = f"{model._meta.app_label}_{model._meta.model_name}"
    change, add = reverse(f"admin:{label}_change", args=[copy.pk]), reverse(f"admin:{label}_add")
    form = {"user_id": copy.user_id, "email": copy.email, "user_name": "Renamed", "is_active": "on"}
    form["opened"] = opened_now(copy, ParticipantUserForm.compared)
    other = form | {"user_id": "other-user", "email": "other@example.com"}
    client = client_of(person_of(CHANGE))
    assert client.post(change, form | {"role": "ROLE_ADMIN"}).status_code == 403
    assert client.post(add, other | {"role": "ROLE_ADMIN"}).status_code == 403
    assert client.post(change, form).status_code == 302
    assert client.post(add, other).status_code == 302
    assert set(model.objects.values_list("user_name", "role")) == {("Renamed", "ROLE_USER")}
    assert [event for event, *_rest in events()] == ["privilege_refused"] * 2
    copy.refresh_from_db()
    form["opened"] = opened_now(copy, ParticipantUserForm.compared)
    assert client_of(person_of(SUPER)).post(change, form | {"role": "ROLE_ADMIN"}).status_code == 302
    copy.refresh_from_db()
    assert copy.role == "ROLE_ADMIN"
    assert events()[-1] == ("privilege_granted", "super-staff", "plain-user", "role: ROLE_ADMIN")


# --- Hashes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [VIEW, CHANGE, SUPER])
def test_no_page_shows_any_part_of_a_hash(kind):
    everything = rows()
    client = client_of(person_of(kind))
    User.objects.filter(pk=everything["authsvc_user@staff"].pk).update(password="")
    for label, row in everything.items():
        for name in ("changelist", "change", "history"):
            arguments = [] if name == "changelist" else [row.pk]
            path = reverse(f"admin:{label.partition('@')[0]}_{name}", args=arguments)
            said = client.get(path, follow=True).content.decode()
            assert "argon2" not in said, path
            assert "salt" not in said, path
    plain = everything["authsvc_user"]
    assert ("A password is set." in client.get(page(plain)).content.decode()) == (kind != VIEW)


def test_an_account_without_a_password_is_marked_as_such():
    user = new_user("no-password")
    user.set_unusable_password()
    user.save()
    assert "No password set." in client_of(person_of(SUPER)).get(page(user)).content.decode()
