"""The status page with the lights of one sign-up, and the rendering that all pages with lights share."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final
from uuid import UUID

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe
from structlog.contextvars import bind_contextvars

from livesettings.values import live
from signup_sync.front import wording
from signup_sync.front.gateway import GatewayError
from signup_sync.front.relay_pool import relays
from signup_sync.front.sockets import socket_path
from signup_sync.front.states import Light, State
from signup_sync.front.tickets import (
    TicketError,
    TicketExpiredError,
    browser_of,
    is_recent,
    open_page_ticket,
    page_ticket,
)

logger = logging.getLogger(__name__)
# Seconds after which a page without a script reloads itself, or moves on when all lights are green.
RELOAD_SECONDS: Final = 2
# The same for a sign-up that is delayed or waits for its confirmation, where frequent reloads gain nothing.
DELAYED_RELOAD_SECONDS: Final = 10


@dataclass(frozen=True, slots=True)
class Page:
    """One browser's access to one sign-up."""

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
    state: State | None = None
    outcome: wording.Outcome = "absent"
    try:
        state = await relays().gateway.read_state(page.signup_id)
    except GatewayError as problem:
        logger.info("sign-up %s: the state can't be read: %s", page.signup_id, problem)
        outcome = "unknown"
    if state is not None:
        outcome = wording.outcome_of(state, is_delayed=not is_recent(ticket, live.SIGNUP_DEADLINE))
    if is_script(request):
        return JsonResponse({"state": state and json.loads(state.text), "outcome": outcome})
    context = {"reload": _reload_after(outcome)}
    return render_with_lights(request, "front/status.html", page, outcome, state=state, context=context)


def _reload_after(outcome: wording.Outcome) -> int | None:
    if outcome in ("red", "refused"):
        return None
    return DELAYED_RELOAD_SECONDS if outcome in ("awaiting", "delayed", "stalled") else RELOAD_SECONDS


def render_with_lights(
    request: HttpRequest,
    template: str,
    page: Page,
    outcome: wording.Outcome,
    *,
    state: State | None = None,
    context: Mapping[str, Any],
    status: HTTPStatus = HTTPStatus.OK,
) -> HttpResponse:
    """Render a page with lights; without a state, all are pending."""
    for_script = {
        "page": page.for_script(),
        "state": state and json.loads(state.text),
        "formPath": reverse("front:signup"),
        "loginPath": reverse("login"),
        "checkPath": reverse("check"),
        "deadline": live.SIGNUP_DEADLINE,
        "words": wording.for_script(),
    }
    everything = {
        **context,
        "ticket": page.ticket,
        "lights": _lights(state),
        "outcome": outcome,
        "title": wording.outcomes()[outcome]["title"],
        "text": wording.text_of(outcome, state),
        "action": wording.outcomes()[outcome]["action"],
        "for_script": for_script,
    }
    return render(request, template, everything, status=status)


def _lights(state: State | None) -> list[dict[str, Any]]:
    """Return the lights for the template; without a state, all are pending."""
    lights = state.services if state else dict.fromkeys(settings.SIGNUP_SERVICES, Light("PENDING"))
    took = state.took if state else {}
    return [
        {
            "service": name,
            "name": wording.name_of(name),
            "status": light.status,
            "word": wording.word_of(light),
            "took": wording.took_of(took.get(name)),
        }
        for name, light in lights.items()
    ]


def _closed_page(request: HttpRequest, reason: str, status: HTTPStatus) -> HttpResponse:
    return render(request, "front/closed.html", {"text": wording.notices()[reason]}, status=status)


def is_script(request: HttpRequest) -> bool:
    return request.headers.get("Accept", "").startswith("application/json")
