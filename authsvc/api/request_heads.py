"""Read the parts of an API request other than its body: scheme, addresses, ticket and preferences."""

import logging
from http import HTTPStatus
from uuid import UUID

from asgiref.typing import HTTPScope
from django.conf import settings
from structlog.contextvars import bind_contextvars

from authsvc.api.header_values import preferences
from authsvc.api.http_messages import header
from authsvc.api.problems import Problem
from authsvc.tickets import forwarded_address, is_from_front, opens
from runtime.tracing import trace_id_in

logger = logging.getLogger(__name__)


def refuse_plain_http(scope: HTTPScope) -> None:
    """Raise Problem 403 for plain HTTP in production, unless it comes from the front (docs/adr/0047)."""
    if not settings.SECURE_SSL_REDIRECT or scope.get("scheme") == "https":
        return
    if not is_from_front(header(scope, b"signup-address") or ""):
        raise Problem(HTTPStatus.FORBIDDEN, "Use HTTPS. This request was sent over the network unencrypted.")


def peer(scope: HTTPScope) -> str | None:
    """Return the client's address. The server has already resolved it behind TRUSTED_PROXIES."""
    client = scope.get("client")
    return client[0] if client else None


def sender(scope: HTTPScope, signup_id: UUID) -> str | None:
    """Return the address of the person who posts this sign-up; for the form's users, the front sends it signed."""
    return forwarded_address(header(scope, b"signup-address") or "", signup_id) or peer(scope)


def name_in_log(scope: HTTPScope, signup_id: UUID) -> None:
    """Add the sign-up's ID to every line that this request logs from now on. If the caller sent its own trace ID, log
    that once (docs/adr/0020)."""
    bind_contextvars(signup_id=str(signup_id))
    caller = trace_id_in((header(scope, b"traceparent") or "").encode("latin-1"))
    if caller not in (None, signup_id.hex):
        logger.info("%s belongs to the caller's trace %s", scope["method"], caller)


def id_in_path(text: str) -> UUID:
    """Return the ID of an event transaction in the request's path. Raise Problem 404."""
    try:
        return UUID(text)
    except ValueError:
        raise not_found() from None


def has_ticket(scope: HTTPScope, transaction_id: UUID) -> bool:
    """Whether the request's ticket grants access to this event transaction."""
    return opens(header(scope, b"signup-ticket") or "", transaction_id)


def has_session(scope: HTTPScope) -> bool:
    """Whether the request has a session cookie, of whatever value."""
    return f"{settings.SESSION_COOKIE_NAME}=" in (header(scope, b"cookie") or "")


def wants_took(scope: HTTPScope) -> bool:
    """Whether the client asks how long each light took (docs/adr/0024)."""
    return "took" in preferences(header(scope, b"prefer") or "")


def last_event_id(scope: HTTPScope) -> int:
    text = header(scope, b"last-event-id") or ""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0


def not_found() -> Problem:
    """Don't reveal whether the sign-up exists."""
    return Problem(HTTPStatus.NOT_FOUND, "There is no such sign-up, or this ticket does not open it.")
