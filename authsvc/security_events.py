"""Security events of logins, wherever they happen (docs/security-events.md)."""

from typing import Any

from django.contrib.auth.signals import user_logged_in, user_logged_out
from django.dispatch import receiver
from django.http import HttpRequest

from authsvc.models import User
from runtime.security_log import SecurityEvent, log_security_event


def log_event_of(
    request: HttpRequest | None, event: SecurityEvent, *, subject: str | None = None, detail: str | None = None
) -> None:
    """The event with who is logged in, and from which address. A login itself is an event of its own."""
    actor = getattr(getattr(request, "user", None), "user_id", None)
    log_security_event(event, actor=actor, subject=subject, address=address_of(request), detail=detail)


def address_of(request: HttpRequest | None) -> str | None:
    """The person's address, which the application has told by TRUSTED_PROXIES."""
    return request.META.get("REMOTE_ADDR") if request else None


@receiver(user_logged_in)
def log_login(sender: Any, *, request: HttpRequest | None, user: User, **kwargs: Any) -> None:
    log_security_event("login", actor=user.user_id, address=address_of(request))


@receiver(user_logged_out)
def log_logout(sender: Any, *, request: HttpRequest | None, user: User | None, **kwargs: Any) -> None:
    if user is not None:
        log_security_event("logout", actor=user.user_id, address=address_of(request))
