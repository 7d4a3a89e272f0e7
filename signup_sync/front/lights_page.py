"""The status page with the lights of a sign-up, change or removal, and the rendering that all such pages share."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final
from uuid import UUID

from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe
from structlog.contextvars import bind_contextvars

from livesettings.values import live
from signup_sync.front import wording
from signup_sync.front.gateway import GatewayError
from signup_sync.front.page_messages import page_message, state_message
from signup_sync.front.relay_pool import relays
from signup_sync.front.sockets import socket_path
from signup_sync.front.states import LightsState
from signup_sync.front.tickets import (
    TicketError,
    TicketExpiredError,
    browser_of,
    is_recent,
    new_browser,
    open_page_ticket,
    page_ticket,
    remember_browser,
)

logger = logging.getLogger(__name__)
# Seconds after which a page without a script reloads itself, or moves on when all lights are green.
RELOAD_SECONDS: Final = 2
# The same for a sign-up that is delayed or waits for its confirmation, where frequent reloads gain nothing.
DELAYED_RELOAD_SECONDS: Final = 10


@dataclass(frozen=True, slots=True)
class Page:
    """One browser's access to one sign-up, change or removal."""

    signup_id: UUID
    ticket: str

    @classmethod
    def of(cls, signup_id: UUID, browser: str) -> "Page":
        return cls(signup_id, page_ticket(signup_id, browser))

    @property
    def status_path(self) -> str:
        return reverse("front:status", args=[self.ticket])

    def for_script(self) -> dict[str, str]:
        return {
            "signupId": str(self.signup_id),
            "ticket": self.ticket,
            "socketPath": socket_path(self.ticket),
            "statusPath": self.status_path,
        }


@require_safe
@never_cache
async def status(request: HttpRequest, ticket: str) -> HttpResponse:
    """Show the lights of the ticket's sign-up. Without a script, the page reloads itself until they are decided."""
    browser = browser_of(request.COOKIES)
    try:
        page = Page(open_page_ticket(ticket, browser), ticket)
    except TicketExpiredError:
        return _closed_page(request, "expired", HTTPStatus.FORBIDDEN)
    except TicketError:
        return _closed_page(request, "foreign", HTTPStatus.NOT_FOUND)
    bind_contextvars(signup_id=str(page.signup_id))
    state: LightsState | None = None
    # A sign-up that awaited its confirmation and is gone has been deleted, because it was not confirmed in time.
    outcome: wording.Outcome = "lapsed" if request.GET.get("shown") == "awaiting" else "absent"
    try:
        state = await relays().gateway.read_state(page.signup_id)
    except GatewayError as problem:
        logger.info("sign-up %s: the state can't be read: %s", page.signup_id, problem)
        outcome = "unknown"
    message = page_message(page.signup_id, outcome, None)
    if state is not None:
        message = state_message(
            page.signup_id, state, slowness=None if is_recent(ticket, live.SIGNUP_DEADLINE) else "delayed"
        )
        outcome = message["shown"]["outcome"]
    if is_script(request):
        return JsonResponse({"state": message if state or outcome == "lapsed" else None, "outcome": outcome})
    context = {"reload": _reload_after(message["shown"])}
    return render_with_lights(request, "front/status.html", page, message, context=context)


def redirect_to_lights(request: HttpRequest, transaction_id: UUID) -> HttpResponse:
    """Let this browser see the lights, and redirect to them."""
    known = browser_of(request.COOKIES)
    browser = known or new_browser()
    response = HttpResponseRedirect(Page.of(transaction_id, browser).status_path)
    response.status_code = HTTPStatus.SEE_OTHER
    if known is None:
        remember_browser(response, browser)
    return response


def _reload_after(shown: Mapping[str, Any]) -> int | None:
    outcome = shown["outcome"]
    # All lights are green: the reload leads to the next page, which changes and removals don't have.
    if outcome in ("red", "refused", "lapsed") or (outcome == "green" and not shown["next"]):
        return None
    return DELAYED_RELOAD_SECONDS if outcome in ("awaiting", "delayed", "stalled") else RELOAD_SECONDS


def render_with_lights(
    request: HttpRequest,
    template: str,
    page: Page,
    message: Mapping[str, Any],
    *,
    context: Mapping[str, Any],
    status: HTTPStatus = HTTPStatus.OK,
) -> HttpResponse:
    """Render a page with the lights of this message."""
    for_script = {
        "page": page.for_script(),
        "message": message,
        "formPath": reverse("front:signup"),
        "checkPath": reverse("check"),
        "words": {"notices": wording.notices(), "checks": wording.CHECK_MESSAGES},
    }
    everything = {
        **context,
        **message["shown"],
        "is_change": message.get("kind") is not None,
        "ticket": page.ticket,
        "for_script": for_script,
    }
    return render(request, template, everything, status=status)


def _closed_page(request: HttpRequest, reason: str, status: HTTPStatus) -> HttpResponse:
    return render(request, "front/closed.html", {"text": wording.notices()[reason]}, status=status)


def is_script(request: HttpRequest) -> bool:
    return request.headers.get("Accept", "").startswith("application/json")
