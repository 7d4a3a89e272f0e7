"""Errors of the API: problem documents of RFC 9457."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

import msgspec
from django.utils.translation import gettext as _


class FieldError(msgspec.Struct, frozen=True):
    """What is wrong with one field. `pointer` is a JSON Pointer into the body."""

    pointer: str
    detail: str


class Problem(Exception):  # noqa: N818 - RFC 9457's word for it
    """Ends a request with this status and problem document. `kind` is its type, where the status does not say all."""

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
    """This rate limit is reached."""
    kind, detail = _LIMITS[limit]
    headers = {"Retry-After": str(retry_after)}
    return Problem(HTTPStatus.TOO_MANY_REQUESTS, f"{detail} Try again in {retry_after} s.", kind=kind, headers=headers)


_LIMITS: Final = {
    "address": ("/problems/limit-address", "Too many sign-ups came from your address in the last minute."),
    "user_id": ("/problems/limit-user-id", "Too many sign-ups asked for this userId in the last minute."),
    "total": ("/problems/limit-total", "Too many people sign up just now."),
    "failed_confirm": ("/problems/limit-password", "Too many passwords were tried for this sign-up."),
    "held": ("/problems/limit-streams", "Too many streams are open for this sign-up or from your address."),
}


def unusable_link(reason: str) -> Problem:
    """The link of a confirmation mail confirms nothing (authsvc.signups.confirmation.UnusableLinkError)."""
    status, detail = _LINKS[reason]
    return Problem(status, detail, kind=f"/problems/link-{reason}")


_LINKS: Final = {
    "unknown": (HTTPStatus.NOT_FOUND, "There is no such token."),
    "expired": (HTTPStatus.GONE, "This token has expired. Sign up again."),
    "used": (HTTPStatus.CONFLICT, "This token was used before."),
}


def wrong_password() -> Problem:
    """The token is right, but whoever signed up chose another password."""
    error = FieldError(pointer="/userPw", detail=_("This is not the password that was chosen for this sign-up."))
    words = "The password is not that of the sign-up."
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, words, kind="/problems/wrong-password", errors=[error])


def unavailable(detail: str, *, retry_after: int = 2) -> Problem:
    """A part is away or overloaded: the same request may work after `retry_after` seconds."""
    return Problem(HTTPStatus.SERVICE_UNAVAILABLE, detail, headers={"Retry-After": str(retry_after)})
