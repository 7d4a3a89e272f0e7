"""The API's errors: problem documents (RFC 9457)."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

import msgspec
from django.utils.translation import gettext as _


class FieldError(msgspec.Struct, frozen=True):
    """An error in one field. `pointer` is a JSON Pointer into the body."""

    pointer: str
    detail: str


class Problem(Exception):  # noqa: N818 - RFC 9457's word for it
    """Ends a request with this status and problem document. `kind` is its type, if the status alone is ambiguous."""

    def __init__(
        self,
        status: HTTPStatus,
        detail: str,
        *,
        kind: str = "about:blank",
        errors: Sequence[FieldError] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind
        self.headers = dict(headers or {})
        self.detail = detail
        self.errors = errors

    def document(self) -> dict[str, Any]:
        document: dict[str, Any] = {
            "type": self.kind,
            "title": self.status.phrase,
            "status": self.status.value,
            "detail": self.detail,
        }
        if self.errors:
            document["errors"] = msgspec.to_builtins(self.errors)
        return document


def too_many(limit: str, *, retry_after: int) -> Problem:
    """Return the Problem for a reached limit."""
    kind, detail = _LIMITS[limit]
    headers = {"Retry-After": str(retry_after)}
    return Problem(HTTPStatus.TOO_MANY_REQUESTS, f"{detail} Try again in {retry_after} s.", kind=kind, headers=headers)


_LIMITS: Final = {
    "address": ("/problems/limit-address", "Too many sign-ups came from your address in the last minute."),
    "user_id": ("/problems/limit-user-id", "Too many sign-ups asked for this userId in the last minute."),
    "total": ("/problems/limit-total", "Too many people are signing up at the moment."),
    "failed_confirm": ("/problems/limit-password", "Too many passwords were tried for this sign-up."),
    "held": ("/problems/limit-streams", "Too many streams are open for this sign-up or from your address."),
}


def unusable_link(reason: str) -> Problem:
    """Return the Problem for a ConfirmationLinkError of authsvc.signups.confirmation."""
    status, detail = _LINKS[reason]
    return Problem(status, detail, kind=f"/problems/link-{reason}")


_LINKS: Final = {
    "unknown": (HTTPStatus.NOT_FOUND, "There is no such token."),
    "expired": (HTTPStatus.GONE, "This token has expired. Sign up again."),
    "used": (HTTPStatus.CONFLICT, "This token was used before."),
}


def wrong_password() -> Problem:
    """Return the Problem for a valid token with a password other than the one chosen at the sign-up."""
    error = FieldError(pointer="/userPw", detail=_("This is not the password that was chosen for this sign-up."))
    words = "The password is not the one chosen at the sign-up."
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, words, kind="/problems/wrong-password", errors=[error])


def unavailable(detail: str, *, retry_after: int = 2) -> Problem:
    """Return the Problem for an outage or overload: the same request may succeed after `retry_after` seconds."""
    return Problem(HTTPStatus.SERVICE_UNAVAILABLE, detail, headers={"Retry-After": str(retry_after)})


def expired_key() -> Problem:
    """Return the Problem for an Idempotency-Key whose sign-up exists and is too old to be repeated."""
    words = "This Idempotency-Key was used before, and its sign-up is too old to be repeated. Use a new key."
    return Problem(HTTPStatus.CONFLICT, words, kind="/problems/key-expired")
