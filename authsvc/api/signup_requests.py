"""Parse `POST /user` and confirmations: from an untrusted body to validated, normalised fields."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final
from uuid import UUID

from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.utils.translation import gettext as _

from authsvc import identity
from authsvc.accounts.passwords import validate_length
from authsvc.api.header_values import JSON, media_type
from authsvc.api.problems import FieldError, Problem
from authsvc.models import Role, User, new_signup_id
from runtime import equality
from runtime.text_length import is_longer_than

BODY_MAX: Final = 64 * 1024
# Bytes of one field: about twice the size of the longest valid text.
FIELD_MAX: Final = 2048
# A body may contain thousands of unknown fields; the response lists only so many.
UNKNOWN_MAX: Final = 20
# Characters of an unknown field's name that the response repeats.
NAME_SHOWN: Final = 100
# Stricter than UUID(), which also accepts braces, urn:uuid: and hyphens anywhere; other clients and gateways don't.
_UUID: Final = "[0-9a-fA-F]{8}(?:-?[0-9a-fA-F]{4}){3}-?[0-9a-fA-F]{12}"
_KEY: Final = re.compile(rf'(?P<plain>{_UUID})|"(?P<quoted>{_UUID})"')

# The functions that normalise and then validate a field.
FieldRule = tuple[Callable[[str], str], Callable[[str], None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class SignUpRequest:
    """The fields of one request. The password is unchanged and is passed to the hash pool only."""

    user_id: str
    email: str
    user_name: str
    role: str
    password: str

    def __repr__(self) -> str:
        return f"SignUpRequest(user_id={self.user_id!r})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmation:
    """The fields of one confirmation: the link's token, and the password that was chosen at the sign-up."""

    token: str
    password: str = field(repr=False)


def read_json(body: bytes, content_type: str) -> Mapping[str, Any]:
    """Parse the body as a JSON object in UTF-8 (RFC 8259, 8.1). Raise Problem 415 or 400."""
    kind, parameters = media_type(content_type)
    if kind != JSON or parameters.get("charset", "utf-8").lower() not in ("utf-8", "utf8"):
        raise Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Send the body as application/json, in UTF-8.")
    try:
        # Decode here, because the parser would also detect UTF-16 and UTF-32. A byte order mark may be ignored.
        text = body.decode("utf-8-sig")
        if "\x00" in text:
            raise Problem(HTTPStatus.BAD_REQUEST, "The body must be UTF-8 without NUL.")
        document = parse_json(text)
    except UnicodeDecodeError as error:
        raise Problem(HTTPStatus.BAD_REQUEST, "The body must be UTF-8.") from error
    except (ValueError, RecursionError) as error:
        raise Problem(HTTPStatus.BAD_REQUEST, f"The body is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise Problem(HTTPStatus.BAD_REQUEST, "The body must be a JSON object.")
    return document


def parse_json(text: str) -> Any:
    """Parse JSON strictly. Raise RecursionError, or ValueError, which includes a name that an object repeats."""
    return json.loads(text, object_pairs_hook=_object, parse_constant=_refuse_constant)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Raise ValueError for a duplicate name: parsers differ on which of the values counts (RFC 8259, 4)."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{shown_name(name)} appears twice in an object")
        found[name] = value
    return found


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not allowed")


def read_idempotency_key(header: str | None) -> UUID:
    """Return the sign-up ID that the client chose, or a new one without the header. The value may be quoted, as a
    string of RFC 9651. Raise Problem 400."""
    if header is None:
        return new_signup_id()
    if not (key := _KEY.fullmatch(header.strip())):
        raise Problem(HTTPStatus.BAD_REQUEST, "Idempotency-Key must be a UUID.")
    return UUID(key["plain"] or key["quoted"])


def read_signup(document: Mapping[str, Any]) -> SignUpRequest:
    """Return the validated fields of `POST /user`. Raise Problem 422 that lists every invalid field."""
    fields = read_fields({"role": Role.USER.value, **document}, SIGNUP_RULES)
    return SignUpRequest(
        user_id=fields["userId"],
        email=fields["email"],
        user_name=fields["userName"],
        role=fields["role"],
        password=fields["userPw"],
    )


def read_confirmation(document: Mapping[str, Any]) -> Confirmation:
    """Return the validated fields of `POST /user/confirmations`. Raise Problem 422 that lists every invalid field."""
    fields = read_fields(document, _CONFIRMATION)
    return Confirmation(token=fields["token"], password=fields["userPw"])


def read_fields(document: Mapping[str, Any], rules: Mapping[str, FieldRule]) -> dict[str, str]:
    """Return the normalised fields, one for each rule. Raise Problem 422 that lists every invalid field."""
    errors: list[FieldError] = []
    fields: dict[str, str] = {}
    for name, (normalize, validate) in rules.items():
        try:
            fields[name] = normalize(_text(document, name))
            validate(fields[name])
        except ValidationError as error:
            errors.extend(FieldError(pointer=f"/{name}", detail=message) for message in error.messages)
    unknown = [name for name in document if name not in rules]
    errors += [FieldError(pointer=_pointer(name), detail=_("Unknown field.")) for name in unknown[:UNKNOWN_MAX]]
    if errors:
        raise _invalid(errors)
    return fields


def check_password_strength(request: SignUpRequest) -> None:
    """Apply the password policy, which also compares the password with the other fields. It is slow, so call it in the
    hash pool. Raise Problem 422."""
    user = User(user_id=request.user_id, email=request.email, user_name=request.user_name)
    try:
        validate_password(request.password, user=user)
    except ValidationError as error:
        raise _invalid([FieldError(pointer="/userPw", detail=message) for message in error.messages]) from None


def complaints(fields: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the error messages, by field, for those fields of a form that are filled in."""
    given = {name: fields[name] for name in ("userId", "email", "userName", "userPw") if fields.get(name)}
    wrong: dict[str, list[str]] = {}

    def take(found: Problem) -> None:
        for error in found.errors:
            wrong.setdefault(error.pointer.removeprefix("/"), []).append(error.detail)

    try:
        read_signup(given)
    except Problem as problem:
        take(problem)
    # Compare the password only with valid fields: the comparison's cost grows with their length.
    right = {name: "" if name in wrong else text for name, text in given.items()}
    if password := right.get("userPw"):
        try:
            check_password_strength(
                SignUpRequest(
                    user_id=right.get("userId", ""),
                    email=right.get("email", ""),
                    user_name=right.get("userName", ""),
                    role=Role.USER.value,
                    password=password,
                )
            )
        except Problem as problem:
            take(problem)
    return {name: texts for name, texts in wrong.items() if name in given}


def _pointer(name: str) -> str:
    """Return the JSON Pointer of a member of the body."""
    return f"/{shown_name(name).replace('~', '~0').replace('/', '~1')}"


def shown_name(name: str) -> str:
    """Return the name, truncated. Lone surrogates, which JSON can express but UTF-8 can't, are replaced."""
    return name[:NAME_SHOWN].encode(errors="replace").decode()


def _invalid(errors: list[FieldError]) -> Problem:
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "Some fields are invalid.", errors=errors)


def _text(document: Mapping[str, Any], name: str) -> str:
    if name not in document:
        raise ValidationError(_("This field is required."))
    value = document[name]
    if not isinstance(value, str):
        raise ValidationError(_("This must be a string."))
    # Check the length before processing the value in any other way (docs/adr/0038).
    if is_longer_than(FIELD_MAX, value):
        raise ValidationError(_("This is too long."))
    # JSON can express both, but PostgreSQL can't store NUL, and UTF-8 can't encode lone surrogates.
    if "\x00" in value or any("\ud800" <= character <= "\udfff" for character in value):
        raise ValidationError(_("Do not use NUL or incomplete characters."))
    return value


def _validate_new_user_id(text: str) -> None:
    identity.validate_user_id(text)
    identity.validate_not_reserved(text)


def _validate_role(text: str) -> None:
    if text not in Role.values:
        raise ValidationError(_("Use one of %(roles)s."), params={"roles": ", ".join(Role.values)})


def _validate_nothing(text: str) -> None:
    """Accept any token; its signature is checked later."""


SIGNUP_RULES: Final[Mapping[str, FieldRule]] = {
    "userId": (equality.normalize_user_id, _validate_new_user_id),
    "email": (equality.normalize_email, identity.validate_address),
    "userName": (str.strip, identity.validate_user_name),
    "role": (str, _validate_role),
    "userPw": (str, validate_length),
}
_CONFIRMATION: Final[Mapping[str, FieldRule]] = {"token": (str, _validate_nothing), "userPw": (str, validate_length)}
