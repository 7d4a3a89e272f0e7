"""Security events: log lines that an operator can count and alert on (docs/security-events.md lists them).

The line's text is the event's name, which never changes; in JSON it is the member `event`. The other members say who
did it (`actor`), to whom or what (`subject`), from which address, and whatever else is worth knowing (`detail`).
"""

import logging
import os
import pwd
import socket
from typing import Any, Final, Literal

from django.http import HttpRequest

SecurityEvent = Literal[
    "login",
    "login_failed",
    "login_throttled",
    "logout",
    "password_changed",
    "password_reset_requested",
    "password_reset_throttled",
    "password_reset",
    "two_factor_enabled",
    "two_factor_disabled",
    "two_factor_failed",
    "two_factor_reset",
    "recovery_codes_renewed",
    "recovery_code_used",
    "privilege_granted",
    "privilege_refused",
    "replay",
    "dead_letter_handled",
    "settings_changed",
]
# Characters of each member: some of them are what a stranger typed.
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
    """Writes one line at INFO. A password, a ticket or a token must never be among the members."""
    members = {"actor": actor, "subject": subject, "address": address, "detail": detail}
    logger.info(event, extra={name: _printable(text[:MEMBER_MAX]) for name, text in members.items() if text})


def log_security_event_of(
    request: HttpRequest | None, event: SecurityEvent, *, subject: str | None = None, detail: str | None = None
) -> None:
    """The same about what a request did: the actor is whoever is logged in, and the address is the request's."""
    user: Any = getattr(request, "user", None)
    actor = user.get_username() if user else None
    log_security_event(event, actor=actor, subject=subject, address=address_of(request), detail=detail)


def address_of(request: HttpRequest | None) -> str | None:
    """The client's address. Behind TRUSTED_PROXIES, the application has put the one that they name in its place."""
    address: str | None = request.META.get("REMOTE_ADDR") if request else None
    return address


def operator() -> str:
    """Who runs this command: the user of the operating system, not what the environment says."""
    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        name = f"user {os.getuid()}"  # as in a container
    return f"{name} on {socket.gethostname()}, by command"


def _printable(text: str) -> str:
    """Without what would begin another line where lines are for people, or move a terminal's cursor."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
