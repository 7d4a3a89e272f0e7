"""Log every login and logout as a security event (docs/security-events.md)."""

from typing import Any

from django.contrib.auth.signals import user_logged_in, user_logged_out
from django.dispatch import receiver
from django.http import HttpRequest

from authsvc.models import User
from runtime.security_log import address_of, log_security_event


@receiver(user_logged_in)
def log_login(sender: Any, *, request: HttpRequest | None, user: User, **kwargs: Any) -> None:
    log_security_event("login", actor=user.user_id, address=address_of(request))


@receiver(user_logged_out)
def log_logout(sender: Any, *, request: HttpRequest | None, user: User | None, **kwargs: Any) -> None:
    if user is not None:
        log_security_event("logout", actor=user.user_id, address=address_of(request))
