"""Check what the session of an API request allows. The API runs none of Django's middleware."""

import io
from uuid import UUID

from asgiref.typing import HTTPScope
from django.conf import settings
from django.contrib.auth import get_user
from django.contrib.auth.models import AnonymousUser
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, HttpResponse
from django.middleware.csrf import CsrfViewMiddleware

from authsvc.accounts.admin_sessions import may_still_administer
from authsvc.accounts.sessions import SessionStore
from authsvc.accounts.two_factor.rules import admitted, may_administer
from authsvc.lights import Kind
from authsvc.models import EventTransaction, User
from runtime.security_log import address_of, log_security_event


def may_add_admin(scope: HTTPScope, *, user_id: str) -> bool:
    """True for a staff session with permission `authsvc.add_admin` whose request passes Django's CSRF check.

    Reads the database: do not call it on the event loop. Logs the decision with the `user_id` of the requested
    administrator.
    """
    request, user = _opened(scope)
    is_allowed = (
        may_administer(user)
        and may_still_administer(request.session)
        and user.has_perm("authsvc.add_admin")
        and _is_own_request(request)
    )
    log_security_event(
        "privilege_granted" if is_allowed else "privilege_refused",
        actor=user.get_username(),
        subject=user_id,
        address=address_of(request),
        detail="ROLE_ADMIN, requested through the API",
    )
    return is_allowed


def may_see_change(scope: HTTPScope, change_id: UUID) -> bool:
    """Whether the session is that of the changed account, or of staff who may view sign-ups. Reads the database."""
    request, user = _opened(scope)
    if not isinstance(user, User) or not user.is_active:
        return False
    if may_administer(user) and may_still_administer(request.session) and user.has_perm("authsvc.view_signup"):
        return True
    own = EventTransaction.objects.filter(id=change_id, owner_signup_id=user.owner_signup_id)
    return own.exclude(kind=Kind.SIGNUP).exists()


def _opened(scope: HTTPScope) -> tuple[HttpRequest, User | AnonymousUser]:
    """Return the request with its session, and the session's user."""
    request = ASGIRequest(dict(scope), io.BytesIO())
    session = SessionStore(request.COOKIES.get(settings.SESSION_COOKIE_NAME))
    request.session = session
    with session.keeping_key():
        user = get_user(request)
    return request, admitted(session, user)


def _is_own_request(request: HttpRequest) -> bool:
    """Whether it passes Django's CSRF check."""
    csrf = CsrfViewMiddleware(_no_view)
    csrf.process_request(request)
    return csrf.process_view(request, _no_view, (), {}) is None


def _no_view(request: HttpRequest) -> HttpResponse:
    return HttpResponse()
