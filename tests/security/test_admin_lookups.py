"""Staff who may see a list can't use its filters to learn about fields that it does not show."""

import pytest
from django.contrib import admin
from django.contrib.admin import site
from django.contrib.auth.models import Permission
from django.contrib.sessions.models import Session
from django.urls import reverse

from runtime.admin_toolkit.page_admin import PageAdmin
from runtime.admin_toolkit.restricted_admin import RestrictedAdmin
from tests.participants import MODELS
from tests.security.staff import SUPER, VIEW, person_of, rows
from tests.users import client_of

pytestmark = pytest.mark.django_db(transaction=True, databases="__all__")

LISTS = [
    model._meta
    for model, its_admin in site._registry.items()
    if not isinstance(its_admin, PageAdmin) and model._meta.label != "livesettings.Overrides"
]
# Lookups on fields of every model, of some and of none, and across relations in both directions.
LOOKUPS = [
    "password=x", "password__gte=argon2", "password__startswith=a", "password__regex=^a", "password__isnull=0",
    "id__exact=1", "id=1", "id__gt=0", "pk=1", "pk__in=1,2", "last_login__gte=2020-01-01", "last_login__isnull=1",
    "owner_signup_id__startswith=0", "owner_signup_id=00000000-0000-0000-0000-000000000000",
    "user_id_key__startswith=p", "email__startswith=p", "is_superuser__exact=1", "is_superuser=1",
    "lights__auth__status=FAIL", "lights__icontains=x", "value__contains=x", "headers__icontains=x", "key=x",
    "groups__name=x", "groups__id__exact=1", "groups__user__password__gte=a", "user__password__gte=a",
    "user__password__startswith=argon2", "user_permissions__codename=add_admin", "logentry__id__gt=0",
    "logentry__user__password__gte=a", "permissions__group__user__password__gte=a", "acts__by__startswith=a",
    "role__gte=A", "role__regex=.*", "is_active__gte=0", "date_joined__year=2026", "created_at__hour=1",
    "_q=x", "unknown=1", "password__gte=a&q=plain", "q=plain&password__gte=a", "password__gte=a&_facets=1",
    "password__gte=a&o=1", "password__gte=a&all=", "password__gte=a&_popup=1",
    "_to_field=password", "_to_field=email", "_to_field=password&_popup=1",
]  # fmt: skip


@pytest.mark.parametrize("opts", LISTS, ids=str)
def test_a_list_refuses_lookups_that_no_filter_of_it_offers(opts):
    rows()
    client = client_of(person_of(VIEW))
    path = reverse(f"admin:{opts.app_label}_{opts.model_name}_changelist")
    assert client.get(path).status_code == 200
    answers = {lookup: client.get(f"{path}?{lookup}").status_code for lookup in LOOKUPS}
    assert {lookup: status for lookup, status in answers.items() if status != 400} == {}


def test_the_lookups_of_filters_still_work_and_unreadable_values_are_no_error():
    rows()
    client = client_of(person_of(VIEW))
    for path, query in (
        ("authsvc/user", "role__exact=ROLE_USER"),
        ("authsvc/user", "is_active__exact=1&is_staff__exact=0"),
        ("authsvc/user", "date_joined__gte=2020-01-01+00%3A00%3A00%2B00%3A00"),
        ("chatsvc/chatuser", "role=ROLE_USER"),
        ("customersvc/customer", "created_at__gte=2020-01-01+00%3A00%3A00%2B00%3A00"),
        ("authsvc/eventtransaction", "lights=pending&begun=1d"),
        ("eventbus/deadletter", "state__exact=waiting&group="),
    ):
        assert client.get(f"/admin/{path}/?{query}").status_code == 200, query
    for query in ("date_joined__gte=never", "is_active__exact=perhaps", "p=x", "o=99.-99.x", "p=-1"):
        assert client.get(f"/admin/authsvc/user/?{query}", follow=True).status_code == 200, query


def test_a_list_is_ordered_only_by_columns_that_it_shows():
    """A list can be ordered only by columns that it shows, in the order of the shown values."""
    orders = {}
    for opts in LISTS:
        its_admin = site._registry[opts.model]
        for column in its_admin.list_display:
            field = getattr(getattr(its_admin, str(column), None), "admin_order_field", None)
            if field and (its_admin.sortable_by is None or column in its_admin.sortable_by):
                orders[f"{opts.label}.{column}"] = field
    assert orders == {
        "authsvc.EventTransaction.user": "user_id_key",
        # Shown with its domain in Unicode.
        "authsvc.User.shown_email": "email",
        **{f"{model._meta.label}.shown_email": "email" for model in MODELS.values()},
        "authsvc.EventTransaction.begun": "created_at",
        "eventbus.DeadLetter.put_aside": "put_aside_at",
        "eventbus.DeadLetter.error_begins": "error",
        "eventbus.DeadLetter.original_place": "topic",
    }


def test_the_pages_of_one_row_refer_to_it_by_no_other_field():
    row = rows()["authsvc_user"]
    client = client_of(person_of(SUPER))
    for page in ("change", "delete"):
        path = reverse(f"admin:authsvc_user_{page}", args=[row.pk])
        for name in ("password", "email", "owner_signup_id"):
            assert client.get(f"{path}?_to_field={name}").status_code == 400
            assert client.post(path, {"_to_field": name, "post": "yes"}).status_code == 400


def test_completion_searches_only_lists_that_may_be_seen():
    rows()
    asked = {"app_label": "admin", "model_name": "logentry", "field_name": "user", "term": "plain"}
    assert client_of(person_of("without")).get("/admin/autocomplete/", asked).status_code == 403
    seen = client_of(person_of(VIEW)).get("/admin/autocomplete/", asked)
    assert [each["text"] for each in seen.json()["results"]] == ["plain-user"]
    hashes = client_of(person_of(SUPER)).get("/admin/autocomplete/", asked | {"term": "argon2"})
    assert hashes.json()["results"] == []


def test_the_rule_holds_for_every_class_also_one_that_somebody_registers_later():
    assert [each for each in site._registry.values() if not isinstance(each, RestrictedAdmin)] == []

    class LibrarysAdmin(admin.ModelAdmin):
        list_filter = ("content_type",)

    try:
        site.register(Permission, LibrarysAdmin)
        site.register(Session)
        for model, kept in ((Permission, "content_type__id__exact"), (Session, "")):
            its_admin = site._registry[model]
            assert isinstance(its_admin, RestrictedAdmin)
            assert not its_admin.lookup_allowed("group__user__password__gte", "a", None)
            assert not its_admin.lookup_allowed("session_key__startswith", "a", None)
            assert not kept or its_admin.lookup_allowed(kept, "1", None)
    finally:
        site.unregister([Permission, Session])
