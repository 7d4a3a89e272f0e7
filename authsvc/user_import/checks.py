"""Check one record of an import file by the rules of `POST /user`."""

from collections.abc import Mapping
from typing import Final
from uuid import UUID

from django.conf import settings
from django.utils.crypto import salted_hmac

from authsvc.accounts.passwords import validate_hash
from authsvc.api.problems import Problem
from authsvc.api.signup_requests import SIGNUP_RULES, FieldRule, read_fields
from authsvc.models import Role
from authsvc.signups.registration import NewSignUp
from authsvc.user_import.formats import COLUMNS, OPTIONAL, ImportRecord
from runtime.equality import user_id_key

_DEFAULTS: Final = {"role": Role.USER.value, "passwordHash": ""}
# Maximum length of a reason, in characters.
_REASON_MAX: Final = 1000


class RejectedError(Exception):
    """A record can't be imported, for the reason in the text."""


def check_record(record: ImportRecord, *, may_add_admins: bool) -> NewSignUp:
    """Return the record's user as a sign-up, whose `password` is "" if the record has no hash. Raise RejectedError."""
    if record.fault:
        raise RejectedError(record.fault)
    given = {name: value for name, value in record.fields.items() if not (name in OPTIONAL and value in ("", None))}
    try:
        fields = read_fields({**_DEFAULTS, **given}, _RULES)
    except Problem as problem:
        reasons = (f"{error.pointer.removeprefix('/')}: {error.detail}" for error in problem.errors)
        raise RejectedError(" ".join(reasons)[:_REASON_MAX]) from None
    if fields["role"] == Role.ADMIN and not may_add_admins:
        raise RejectedError(f"role: {Role.ADMIN} needs --on-behalf-of.")
    return NewSignUp(
        signup_id=derived_signup_id(fields),
        user_id=fields["userId"],
        email=fields["email"],
        user_name=fields["userName"],
        role=fields["role"],
        password=fields["passwordHash"],
        may_be_repeated=False,
    )


def derived_signup_id(fields: Mapping[str, str], *, key: str | None = None) -> UUID:
    """Return the ID of the sign-up that the same fields always join, whatever their password hash (docs/adr/0068).

    It is keyed with SECRET_KEY, so that nobody can sign up with the ID before the import does, or recover the fields of
    a removed user by hashing guesses. `key` replaces SECRET_KEY.
    """
    text = "\0".join([user_id_key(fields["userId"]), fields["email"], fields["userName"], fields["role"]])
    digest = salted_hmac("authsvc.user_import", text, secret=key, algorithm="sha256").digest()
    return UUID(bytes=digest[:16], version=4)


def former_ids_of(new: NewSignUp) -> list[UUID]:
    """Return the IDs that the same record has had, or may have, with the keys in SECRET_KEY_FALLBACKS."""
    return [derived_signup_id(source_fields(new), key=key) for key in settings.SECRET_KEY_FALLBACKS]


def source_fields(new: NewSignUp) -> dict[str, str]:
    """Return the fields of the record that became this sign-up."""
    values = (new.user_id, new.user_name, new.email, new.role, new.password)
    return dict(zip(COLUMNS, values, strict=True))


def _validate_hash_if_any(text: str) -> None:
    if text:
        validate_hash(text)


_RULES: Final[Mapping[str, FieldRule]] = {
    **{name: SIGNUP_RULES[name] for name in ("userId", "userName", "email", "role")},
    "passwordHash": (str.strip, _validate_hash_if_any),
}
