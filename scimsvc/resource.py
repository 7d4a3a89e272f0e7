"""The user as a SCIM server represents it: the attributes that are provisioned, and how auth's record maps to them."""

from collections.abc import Iterator
from typing import Annotated, Any, Final

from scim2_models import URN, ComplexAttribute, PatchOp, PatchOperation, Path, Required, Resource, Uniqueness

from participant.events import UserRecord

# The paths that a PATCH may replace, with the names of the attributes.
_PATHS: Final = {
    "user_name": "userName",
    "display_name": "displayName",
    "name": "name.formatted",
    "emails": "emails",
    "roles": "roles",
    "active": "active",
}
# The contract's names of the fields that the attributes come from.
_FIELDS: Final = {
    "user_name": "userId",
    "display_name": "userName",
    "name": "userName",
    "emails": "email",
    "roles": "role",
    "active": "active",
}


class Name(ComplexAttribute):
    formatted: str | None = None


class Value(ComplexAttribute):
    """An entry of `emails` or `roles`."""

    value: str | None = None
    primary: bool | None = None


class ScimUser(Resource[Any]):
    """The part of RFC 7643's user that is provisioned. Other attributes of an answer are ignored.

    scim2_models.User would also validate attributes that are not provisioned, and the form of those that are: it
    rejects a whole user because of an email address in .test, for example.
    """

    __schema__ = URN("urn:ietf:params:scim:schemas:core:2.0:User")

    user_name: Annotated[str | None, Uniqueness.server, Required.true] = None
    display_name: str | None = None
    name: Name | None = None
    emails: list[Value] | None = None
    roles: list[Value] | None = None
    active: bool | None = None


def user_of(record: UserRecord) -> ScimUser:
    """Return the user that the server should have. Without a name, displayName is the userId."""
    name = record.user_name or record.user_id
    return ScimUser(
        external_id=str(record.owner_signup_id),
        user_name=record.user_id,
        display_name=name,
        name=Name(formatted=name),
        emails=[Value(value=record.email, primary=True)],
        roles=[Value(value=record.role, primary=True)],
        active=record.is_account_active,
    )


def differences(current: ScimUser, wanted: ScimUser) -> tuple[str, ...]:
    """Return the contract's names of the fields that differ. What the server does not return is not compared: it may
    not store it."""
    names = {_FIELDS[name] for name, _ in _differences(current, wanted) if getattr(current, name) is not None}
    return tuple(sorted(names))


def changes(current: ScimUser, wanted: ScimUser) -> PatchOp[ScimUser] | None:
    """Return the PATCH that makes `current` like `wanted`, or None if nothing differs."""
    operations = [
        PatchOperation[ScimUser](
            op=PatchOperation.Op.replace_, path=Path[ScimUser](path), value=_new_value(name, wanted)
        )
        for name, path in _differences(current, wanted)
    ]
    return PatchOp[ScimUser](Operations=operations) if operations else None


def _differences(current: ScimUser, wanted: ScimUser) -> Iterator[tuple[str, str]]:
    for name, path in _PATHS.items():
        if _comparable(getattr(current, name)) != _comparable(getattr(wanted, name)):
            yield name, path


def _comparable(value: Any) -> Any:
    """Return the value without what servers add on their own: types, display names and flags of entries."""
    if isinstance(value, list):
        return [each.value for each in value]
    return value.formatted if isinstance(value, Name) else value


def _new_value(name: str, wanted: ScimUser) -> Any:
    value = getattr(wanted, name)
    return value.formatted if isinstance(value, Name) else value
