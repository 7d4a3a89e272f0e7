"""Security events: log lines that an operator can count and alert on (docs/security-events.md lists them).

The line's text is the event's name, which is stable; in JSON it is the member `event`. The other members are `actor`,
`subject` (the user or object affected), `address` and `detail`.
"""

import logging
import os
import pwd
import socket
from typing import Any, Final, Literal

from django.http import HttpRequest

from runtime.terminal import printable

SecurityEvent = Literal[
    "login",
    "login_failed",
    "login_throttled",
    "logout",
    "password_changed",
    "password_reset_requested",
    "password_reset_throttled",
    "password_reset",
    "account_changed",
    "address_change_requested",
    "two_factor_enabled",
    "two_factor_disabled",
    "two_factor_failed",
    "two_factor_reset",
    "recovery_codes_renewed",
    "recovery_code_used",
    "privilege_granted",
    "privilege_refused",
    "users_imported",
    "account_closing",
    "account_kept",
    "account_removed",
    "data_exported",
    "replay",
    "dead_letter_handled",
    "settings_changed",
]
# Maximum characters of each member: some are untrusted input.
MEMBER_MAX: Final = 200

logger = logging.getLogger("security")


def log_security_event(
    event: SecurityEvent,
    *,
    actor: str | None = None,
    subject: str | None = None,
    address: str | None = None,
    detail: str | None = None,
) -> None:
    """Write one line at INFO. The members must never contain a password, a ticket or a token."""
    members = {"actor": actor, "subject": subject, "address": address, "detail": detail}
    shown = {name: printable(text[:MEMBER_MAX]).replace("\n", "\\n") for name, text in members.items() if text}
    logger.info(event, extra=shown)


def log_security_event_of(
    request: HttpRequest | None, event: SecurityEvent, *, subject: str | None = None, detail: str | None = None
) -> None:
    """Log an event that a request caused: the actor is the logged-in user, and the address is the client's."""
    user: Any = getattr(request, "user", None)
    actor = user.get_username() if user else None
    log_security_event(event, actor=actor, subject=subject, address=address_of(request), detail=detail)


def address_of(request: HttpRequest | None) -> str | None:
    """Return the client's address. Behind TRUSTED_PROXIES, the ASGI application has set it from their header."""
    address: str | None = request.META.get("REMOTE_ADDR") if request else None
    return address


def operator() -> str:
    """Return the operating system's user who runs this command, not the name in the environment, and the host."""
    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        name = f"user {os.getuid()}"  # A container may have no name for the user.
    return f"{name} on {socket.gethostname()}, by command"
