"""Auth's record as a SCIM user, and the PATCH for what changed."""

from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from scim2_models import Context

from scimsvc.resource import Name, ScimUser, Value, changes, user_of

OWNER = UUID(int=7)


def record(**changed: Any) -> SimpleNamespace:
    fields = {
        "owner_signup_id": OWNER,
        "user_id": "kim",
        "email": "kim@example.test",
        "user_name": "Kim Minji",
        "role": "ROLE_USER",
        "is_account_active": True,
    }
    return SimpleNamespace(**(fields | changed))


def patched(current: ScimUser, wanted: ScimUser) -> dict[str, Any]:
    patch = changes(current, wanted)
    document = patch.model_dump(scim_ctx=Context.RESOURCE_PATCH_REQUEST) if patch else {"Operations": []}
    assert {operation["op"] for operation in document["Operations"]} <= {"replace"}
    return {operation["path"]: operation["value"] for operation in document["Operations"]}


def test_a_record_becomes_a_user_whose_external_id_is_the_owner():
    assert user_of(record()).model_dump(scim_ctx=Context.RESOURCE_CREATION_REQUEST) == {
        "schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"],
        "externalId": str(OWNER),
        "userName": "kim",
        "displayName": "Kim Minji",
        "name": {"formatted": "Kim Minji"},
        "emails": [{"value": "kim@example.test", "primary": True}],
        "roles": [{"value": "ROLE_USER", "primary": True}],
        "active": True,
    }


def test_a_user_without_a_name_is_displayed_by_its_user_id():
    user = user_of(record(user_name=""))
    assert (user.display_name, user.name) == ("kim", Name(formatted="kim"))


@pytest.mark.parametrize(
    ("changed", "patch"),
    [
        ({"user_id": "lee"}, {"userName": "lee"}),
        ({"user_name": "Kim M."}, {"displayName": "Kim M.", "name.formatted": "Kim M."}),
        ({"email": "new@example.test"}, {"emails": [{"value": "new@example.test", "primary": True}]}),
        ({"role": "ROLE_ADMIN"}, {"roles": [{"value": "ROLE_ADMIN", "primary": True}]}),
        ({"is_account_active": False}, {"active": False}),
        ({}, {}),
    ],
)
def test_a_patch_replaces_what_changed_and_nothing_else(changed: dict[str, Any], patch: dict[str, Any]):
    assert patched(user_of(record()), user_of(record(**changed))) == patch


def test_attributes_that_a_server_adds_are_no_change():
    current = user_of(record())
    current.emails = [Value(value="kim@example.test", primary=None)]
    assert patched(current, user_of(record())) == {}


def test_an_attribute_that_the_server_lacks_is_a_change():
    current = ScimUser(id="1", external_id=str(OWNER), user_name="kim")
    assert patched(current, user_of(record())).keys() == {"displayName", "name.formatted", "emails", "roles", "active"}
