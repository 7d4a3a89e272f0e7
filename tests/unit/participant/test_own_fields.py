"""A service's own fields: what they must have, and where the admin shows them."""

from collections.abc import Iterator

import pytest
from django.contrib import admin
from django.db import models
from django.test import RequestFactory
from django.test.utils import isolate_apps

from participant.admin import ParticipantUserAdmin
from participant.models import ParticipantUser, own_fields


@pytest.fixture(autouse=True)
def isolated() -> Iterator[None]:
    with isolate_apps("chatsvc"):
        yield


def model_with(**fields: models.Field) -> type[ParticipantUser]:
    meta = type("Meta", (ParticipantUser.Meta,), {"app_label": "chatsvc"})
    return type("OtherUser", (ParticipantUser,), {"__module__": "chatsvc.models", "Meta": meta, **fields})


@pytest.mark.parametrize(
    ("field", "is_refused"),
    [
        (models.IntegerField(default=0), False),
        (models.IntegerField(null=True), False),
        (models.IntegerField(), True),
        (models.IntegerField(db_default=0), True),
        (models.DateTimeField(auto_now_add=True), True),
    ],
    ids=["default", "null", "neither", "db_default", "auto_now_add"],
)
def test_a_field_needs_a_default_that_python_knows(field: models.Field, is_refused: bool):
    errors = [error.id for error in model_with(credit=field).check(databases=None)]
    assert ("participant.E001" in errors) is is_refused


def test_the_admin_shows_own_fields_in_a_section():
    model = model_with(credit=models.IntegerField(default=0), note=models.TextField(default="", editable=False))
    assert [field.name for field in own_fields(model)] == ["credit", "note"]
    shown = ParticipantUserAdmin(model, admin.site).get_fieldsets(RequestFactory().get("/"))
    assert shown[1] == ("Chat service", {"fields": ["credit"]})
    assert len(shown) == len(ParticipantUserAdmin.fieldsets) + 1


def test_an_admin_subclass_may_place_own_fields():
    class Placed(ParticipantUserAdmin):
        fieldsets = ((None, {"fields": ("user_id", "credit")}),)

    model = model_with(credit=models.IntegerField(default=0))
    assert Placed(model, admin.site).get_fieldsets(RequestFactory().get("/")) == Placed.fieldsets
