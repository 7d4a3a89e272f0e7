"""The page that a confirmation mail links to."""

import logging
from http import HTTPStatus
from typing import Final

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods
from structlog.contextvars import bind_contextvars

from signup_sync.front import wording
from signup_sync.front.forms import ConfirmForm
from signup_sync.front.gateway import LINK_EXPIRED, LINK_UNKNOWN, LINK_USED, GatewayError
from signup_sync.front.lights_page import redirect_to_lights
from signup_sync.front.relay_pool import relays
from signup_sync.front.tickets import (
    TicketError,
    TicketExpiredError,
    confirmed_by,
)

logger = logging.getLogger(__name__)


@require_http_methods(["GET", "HEAD", "POST"])
@never_cache
@sensitive_post_parameters("userPw")
async def confirm_sign_up(request: HttpRequest, token: str) -> HttpResponse:
    """Confirm a sign-up. GET shows a form and changes nothing, because mail scanners also open links. POST, with the
    password chosen at sign-up, creates the account and redirects this browser to the lights."""
    try:
        signup_id = confirmed_by(token)
    except TicketExpiredError:
        return _link_page(request, "expired", HTTPStatus.GONE)
    except TicketError:
        return _link_page(request, "unknown", HTTPStatus.NOT_FOUND)
    bind_contextvars(signup_id=str(signup_id))
    form = ConfirmForm(request.POST if request.method == "POST" else None)
    try:
        if form.is_valid():
            await relays().gateway.confirm(token, form.cleaned_data["userPw"])
            return redirect_to_lights(request, signup_id)
        if not form.is_bound:
            state = await relays().gateway.read_state(signup_id)
            if state is None:
                return _link_page(request, "expired", HTTPStatus.GONE)
            if state.awaiting is None:
                return _link_page(request, "used", HTTPStatus.GONE)
    except GatewayError as problem:
        logger.info("sign-up %s: the confirmation link was refused: %s", signup_id, problem)
        if not form.show_problem(problem):
            return _link_page(request, *_LINK_PROBLEMS.get(problem.kind, ("away", HTTPStatus.SERVICE_UNAVAILABLE)))
        return _confirm_page(request, form, HTTPStatus(problem.status), retry_after=problem.retry_after)
    return _confirm_page(request, form, HTTPStatus.UNPROCESSABLE_ENTITY if form.is_bound else HTTPStatus.OK)


def _confirm_page(
    request: HttpRequest, form: ConfirmForm, status: HTTPStatus, *, retry_after: int | None = None
) -> HttpResponse:
    response = render(request, "front/confirm.html", {"form": form}, status=status)
    if retry_after is not None:
        response["Retry-After"] = str(retry_after)
    return response


_LINK_PROBLEMS: Final = {
    LINK_UNKNOWN: ("unknown", HTTPStatus.NOT_FOUND),
    LINK_EXPIRED: ("expired", HTTPStatus.GONE),
    LINK_USED: ("used", HTTPStatus.GONE),
}


def _link_page(request: HttpRequest, reason: str, status: HTTPStatus) -> HttpResponse:
    return render(request, "front/link.html", wording.LINKS[reason], status=status)
