"""Redirect to the lights of a change or a removal, if the browser may see them."""

import logging
from http import HTTPStatus
from uuid import UUID

from django.conf import settings
from django.contrib.auth.views import redirect_to_login
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe
from structlog.contextvars import bind_contextvars

from signup_sync.front import wording
from signup_sync.front.gateway import GatewayError
from signup_sync.front.lights_page import redirect_to_lights
from signup_sync.front.relay_pool import relays
from signup_sync.front.tickets import CHANGE_COOKIE, opens

logger = logging.getLogger(__name__)


@require_safe
@never_cache
async def change(request: HttpRequest, change_id: UUID) -> HttpResponse:
    """Redirect to the lights, with a page ticket for this browser."""
    bind_contextvars(signup_id=str(change_id))
    session = request.COOKIES.get(settings.SESSION_COOKIE_NAME)
    if opens(request.COOKIES.get(CHANGE_COOKIE, ""), change_id):
        return redirect_to_lights(request, change_id)
    if session is None:
        return redirect_to_login(request.path)
    try:
        if await relays().gateway.may_see_change(change_id, session):
            return redirect_to_lights(request, change_id)
    except GatewayError as problem:
        logger.info("change %s: auth did not answer whether this browser may see it: %s", change_id, problem)
        text, status = wording.CHANGE_NOTICES["away"], HTTPStatus.SERVICE_UNAVAILABLE
    else:
        text, status = wording.CHANGE_NOTICES["foreign"], HTTPStatus.NOT_FOUND
    return render(request, "front/closed.html", {"text": text, "is_change": True}, status=status)
