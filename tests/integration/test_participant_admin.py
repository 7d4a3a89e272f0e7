"""The admin of chat's users and of customers: pages of `default`, rows of the service's own database."""

from dataclasses import dataclass
from uuid import UUID, uuid4

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.test import Client
from django.urls import reverse

from participant.admin import ParticipantUserForm
from participant.events import UserRecord
from participant.models import ParticipantUser
from participant.user_table import write, write_tombstones
from runtime.opened_forms import opened_now
from tests.participants import MODELS

pytestmark = pytest.mark.django_db(databases=["default", *MODELS])


@dataclass(frozen=True)
class Pages:
    """The admin pages of one model, as the user of `client` sees them."""

    model: type[ParticipantUser]
    client: Client

    def url(self, page: str, *args: object) -> str:
        return reverse(f"admin:{self.model._meta.app_label}_{self.model._meta.model_name}_{page}", args=args)

    def add(self, user_id: str = "Kim", email: str = "kim@example.org", **fields: str):
        return self._post(self.url("add"), user_id=user_id, email=email, **fields)

    def change(self, row: ParticipantUser, **fields: str):
        """Submit the form as it was shown while the row was `row`, with these fields changed."""
        kept = {name: getattr(row, name) for name in ("user_id", "email", "user_name", "role")}
        kept["opened"] = opened_now(row, ParticipantUserForm.compared)
        return self._post(self.url("change", row.pk), **kept | fields)

    def act(self, action: str, *rows: ParticipantUser, **fields: str):
        chosen = {"action": action, "_selected_action": [row.pk for row in rows]}
        return self.client.post(self.url("changelist"), chosen | fields, follow=True)

    def found(self, query: str) -> list[str]:
        response = self.client.get(self.url("changelist"), {"q": query})
        return [row.user_id for row in response.context["cl"].result_list]

    def _post(self, url: str, **fields: str):
        form = {"user_name": "Kim", "role": "ROLE_USER", "is_active": "on"} | fields
        return self.client.post(url, form, follow=True)


@pytest.fixture
def admin_client() -> Client:
    client = Client()
    client.force_login(get_user_model().objects.create_superuser("root-user", "root@example.org", "correct horse 9"))
    return client


@pytest.fixture(params=MODELS.values(), ids=MODELS)
def pages(request: pytest.FixtureRequest, admin_client: Client) -> Pages:
    return Pages(request.param, admin_client)


def row_of(pages: Pages, user_id: str = "kim", **fields: object) -> ParticipantUser:
    return pages.model.objects.create(user_id=user_id, email=f"{user_id}@example.org", **fields)


def errors_of(response) -> dict[str, list[str]]:
    return response.context["adminform"].form.errors


def test_adding_a_user_normalises_it(pages):
    pages.add("ＫIM", "Kim@Example.org")
    row = pages.model.objects.get()
    assert (row.user_id, row.user_id_key, row.email) == ("KIM", "kim", "kim@example.org")
    assert (row.signup_id, row.owner_signup_id) == (None, None)


def test_the_same_user_id_in_another_case_is_an_error_of_that_field(pages):
    row_of(pages, "Kim")
    response = pages.add("ｋIM", "other@example.org")
    assert response.status_code == 200
    assert errors_of(response) == {"user_id": ["This user ID is taken: “Kim” is the same."]}
    assert pages.model.objects.count() == 1


def test_the_same_email_in_another_case_is_an_error_of_that_field(pages):
    row_of(pages, "kim")
    assert set(errors_of(pages.add("other", "KIM@example.org"))) == {"email"}
    assert pages.model.objects.count() == 1


@pytest.mark.parametrize(
    "user_id", ["", "a\0b", "a" * 65, "ﷺ" * 4], ids=["empty", "NUL", "long", "long once normalised"]
)
def test_a_user_id_that_cannot_be_kept_is_an_error_of_that_field(pages, user_id):
    assert set(errors_of(pages.add(user_id))) == {"user_id"}
    assert not pages.model.objects.exists()


def test_changing_a_user_keeps_the_ids_of_its_sign_ups(pages):
    row = row_of(pages, signup_id=UUID(int=1), owner_signup_id=UUID(int=2))
    pages.change(row, user_name="Kim the second", user_id="KIM", signup_id=str(UUID(int=9)))
    row.refresh_from_db()
    assert (row.user_name, row.user_id, row.user_id_key) == ("Kim the second", "KIM", "kim")
    assert (row.signup_id, row.owner_signup_id) == (UUID(int=1), UUID(int=2))


def test_changing_a_user_to_another_ones_user_id_is_an_error_of_that_field(pages):
    row_of(pages, "lee")
    assert set(errors_of(pages.change(row_of(pages, "kim"), user_id="LEE"))) == {"user_id"}


def test_a_form_that_was_opened_before_a_change_in_auth_does_not_undo_it(pages):
    row = row_of(pages, owner_signup_id=UUID(int=2))
    record = UserRecord(
        owner_signup_id=UUID(int=2),
        user_id="kim",
        email="new@example.org",
        user_name="New",
        role="ROLE_ADMIN",
        version=2,
    )
    write(pages.model, updates=[(record, pages.model.objects.get(pk=row.pk))])
    response = pages.change(row, user_name="Typed", is_active="")
    assert errors_of(response)["__all__"] == [
        "This user was changed after you opened this page. Your input is kept: check it and save again."
    ]
    assert errors_of(response)["user_name"] == ["Now stored: New"]
    kept = pages.model.objects.get(pk=row.pk)
    assert (kept.email, kept.user_name, kept.role, kept.is_active) == ("new@example.org", "New", "ROLE_ADMIN", True)

    # Saving again confirms the typed values, and keeps auth's other changes.
    pages.client.post(pages.url("change", row.pk), response.context["adminform"].form.data.dict())
    kept = pages.model.objects.get(pk=row.pk)
    assert (kept.email, kept.user_name, kept.role, kept.is_active) == ("new@example.org", "Typed", "ROLE_ADMIN", False)
    assert kept.version == 2


def test_the_second_of_two_administrators_does_not_undo_what_the_first_has_changed(pages):
    row = row_of(pages)
    pages.change(row, is_active="")
    assert "This user was changed after" in errors_of(pages.change(row, user_name="Typed"))["__all__"][0]
    assert not pages.model.objects.get(pk=row.pk).is_active


def test_the_history_lists_each_change(pages):
    pages.add()
    row = pages.model.objects.get()
    pages.change(row, user_name="Other")
    pages.act("deactivate", row)
    history = pages.client.get(pages.url("history", row.pk)).content.decode()
    assert "Added." in history
    assert "Changed Name." in history
    assert "Changed active." in history


def test_the_page_names_the_rows_sign_ups_and_explains_deleting(pages):
    row = row_of(pages, signup_id=UUID(int=1), owner_signup_id=UUID(int=2))
    page = pages.client.get(pages.url("change", row.pk)).content.decode()
    assert str(UUID(int=1)) in page
    assert str(UUID(int=2)) in page
    assert "the next replay of the sign-up adds it again" in page


def test_deleting_a_user_warns_and_then_deletes(pages):
    row = row_of(pages)
    warning = pages.client.get(pages.url("delete", row.pk)).content.decode()
    assert "the next replay of the sign-up adds it again" in warning
    pages.client.post(pages.url("delete", row.pk), {"post": "yes"})
    assert not pages.model.objects.exists()


def test_deleting_chosen_users_warns_and_then_deletes(pages):
    rows = [row_of(pages, "kim"), row_of(pages, "lee")]
    warning = pages.act("delete_selected", *rows).content.decode()
    assert "the next replay of the sign-up adds it again" in warning
    pages.act("delete_selected", *rows, post="yes")
    assert not pages.model.objects.exists()


def test_chosen_users_are_deactivated_and_activated(pages):
    kim, lee, other = row_of(pages, "kim"), row_of(pages, "lee", is_active=False), row_of(pages, "other")
    response = pages.act("deactivate", kim, lee)
    assert "1 user was deactivated. 1 user was already inactive." in response.content.decode()
    assert set(pages.model.objects.filter(is_active=True)) == {other}
    response = pages.act("activate", kim, lee, other)
    assert "2 users were activated. 1 user was already active." in response.content.decode()
    assert not pages.model.objects.filter(is_active=False).exists()
    response = pages.act("activate", kim, lee, other)
    assert "0 users were activated. 3 users were already active." in response.content.decode()


def test_the_log_names_rows_by_their_accounts_so_that_a_removal_needs_no_erasure_here(pages):
    lee, jun, mina = (row_of(pages, name, owner_signup_id=uuid4()) for name in ("lee", "jun", "mina"))
    pages.change(lee, user_name="Lee")
    pages.act("deactivate", jun)
    pages.client.post(pages.url("delete", mina.pk), {"post": "yes"})
    pages.act("delete_selected", jun, post="yes")
    pages.act("deactivate", row_of(pages, "own"))
    named = [each.object_repr for each in LogEntry.objects.order_by("pk")]
    assert named == [*(str(row.owner_signup_id) for row in (lee, jun, mina, jun)), "own"]


def test_users_are_found_by_user_id_email_and_sign_up(pages):
    signup_id, owner = uuid4(), uuid4()
    row_of(pages, "Straße", signup_id=signup_id, owner_signup_id=owner)
    row_of(pages, "lee")
    for query in ["straße", "STRASSE", "straße@example", str(signup_id), str(owner)]:
        assert pages.found(query) == ["Straße"], query
    assert pages.found("no such user") == []


def test_the_list_has_its_filters(pages):
    row_of(pages, "kim")
    row_of(pages, "lee", is_active=False, role="ROLE_ADMIN")
    for filters in [{"is_active__exact": "0"}, {"role": "ROLE_ADMIN"}]:
        response = pages.client.get(pages.url("changelist"), filters)
        assert [row.user_id for row in response.context["cl"].result_list] == ["lee"]


def test_version_and_auths_decision_are_shown_read_only(pages):
    row = row_of(pages, owner_signup_id=UUID(int=1), version=7, is_account_active=False)
    page = pages.client.get(pages.url("change", row.pk)).content.decode()
    assert "Version:" in page
    assert "Auth decides about this for all services." in page
    pages.change(row, version="1", is_account_active="on", user_name="Changed")
    row.refresh_from_db()
    assert (row.user_name, row.version, row.is_account_active) == ("Changed", 7, False)
    response = pages.client.get(pages.url("changelist"), {"is_account_active__exact": "0"})
    assert [each.user_id for each in response.context["cl"].result_list] == ["kim"]


def test_a_removed_account_is_in_no_list_and_has_no_page(pages):
    row = row_of(pages, owner_signup_id=UUID(int=1))
    write_tombstones(pages.model, [(UUID(int=1), 2)])
    assert not pages.client.get(pages.url("changelist")).context["cl"].result_list
    assert pages.found(str(UUID(int=1))) == []
    response = pages.client.get(pages.url("change", row.pk), follow=True)
    assert "Perhaps it was deleted?" in response.content.decode()


def test_staff_with_only_the_view_permission_change_nothing(pages):
    row = row_of(pages)
    staff = get_user_model().objects.create_user("staff-1", "staff@example.org", is_staff=True)
    staff.user_permissions.add(Permission.objects.get(codename=f"view_{pages.model._meta.model_name}"))
    viewer = Pages(pages.model, Client())
    viewer.client.force_login(staff)
    assert viewer.client.get(viewer.url("change", row.pk)).status_code == 200
    assert viewer.change(row, user_name="Other").status_code == 403
    assert viewer.add("lee", "lee@example.org").status_code == 403
    assert viewer.client.post(viewer.url("delete", row.pk), {"post": "yes"}).status_code == 403
    for action, words in (("deactivate", "Deactivate selected users"), ("delete_selected", "Delete selected")):
        refused = viewer.client.post(viewer.url("changelist"), {"action": action, "_selected_action": [row.pk]})
        assert refused.status_code == 403
        assert f"You do not have permission to do this: “{words}" in refused.content.decode()
    row.refresh_from_db()
    assert (row.is_active, row.user_name) == (True, "")
