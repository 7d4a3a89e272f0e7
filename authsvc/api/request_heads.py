"""What a request to the API says besides its body: scheme, method, ticket and preferences."""

import logging
from http import HTTPStatus
from uuid import UUID

from asgiref.typing import HTTPScope
from django.conf import settings
from structlog.contextvars import bind_contextvars

from authsvc.api.header_values import preferences
from authsvc.api.http_messages import header
from authsvc.api.problems import Problem
from authsvc.api.tickets import forwarded_address, is_from_front, opens
from runtime.tracing import trace_id_in

logger = logging.getLogger(__name__)


def refuse_plain_http(scope: HTTPScope) -> None:
    """In production the API is for HTTPS; the front comes to it inside (docs/adr/0047)."""
    if not settings.SECURE_SSL_REDIRECT or scope.get("scheme") == "https":
        return
    if not is_from_front(header(scope, b"signup-address") or ""):
        raise Problem(HTTPStatus.FORBIDDEN, "Use HTTPS. What this request held went over the network unencrypted.")


def peer(scope: HTTPScope) -> str | None:
    """The client's address. Behind TRUSTED_PROXIES, the application has put the one that they name in its place."""
    client = scope.get("client")
    return client[0] if client else None


def sender(scope: HTTPScope, signup_id: UUID) -> str | None:
    """The address of the person who posts this sign-up: the front signs it for those who use the form."""
    return forwarded_address(header(scope, b"signup-address") or "", signup_id) or peer(scope)


def name_in_log(scope: HTTPScope, signup_id: UUID) -> None:
    """Adds the sign-up to every line that this request logs from here on. If the caller has a trace of its own, its id
    is logged once (docs/adr/0020)."""
    bind_contextvars(signup_id=str(signup_id))
    caller = trace_id_in((header(scope, b"traceparent") or "").encode("latin-1"))
    if caller not in (None, signup_id.hex):
        logger.info("%s belongs to the caller's trace %s", scope["method"], caller)


def visible_signup(scope: HTTPScope, text: str) -> UUID:
    """The sign-up of the path, if the request's ticket opens it: 404 does not tell whether it exists."""
    try:
        signup_id = UUID(text)
    except ValueError:
        raise not_found() from None
    if not opens(header(scope, b"signup-ticket") or "", signup_id):
        raise not_found()
    return signup_id


def wants_took(scope: HTTPScope) -> bool:
    """Whether the client asks how long each light took (docs/adr/0024)."""
    return "took" in preferences(header(scope, b"prefer") or "")


def last_event_id(scope: HTTPScope) -> int:
    text = header(scope, b"last-event-id") or ""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0


def not_found() -> Problem:
    return Problem(HTTPStatus.NOT_FOUND, "There is no such sign-up, or this ticket does not open it.")
