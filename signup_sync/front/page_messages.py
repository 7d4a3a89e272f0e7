"""Everything that the page shows about a sign-up, a change or a removal, for the template and the script
(docs/schemas/page-message.json)."""

import json
from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

from django.conf import settings
from django.urls import reverse

from livesettings.values import live
from runtime.light_wording import name_of, shown_light
from signup_sync.front.states import Light, LightsState, Slowness
from signup_sync.front.wording import Outcome, outcome_text, outcomes, refusal_errors, took_of

# A page never goes back to an outcome of a lower stage: its WebSocket and its polls may overtake each other.
STAGES: Final[Mapping[Outcome, int]] = {"delayed": 1, "stalled": 2, "green": 3, "red": 3, "refused": 3, "lapsed": 3}


def outcome_of(state: LightsState, *, slowness: Slowness | None) -> Outcome:
    """Return a state's outcome for the user."""
    if state.awaiting is not None:
        return "awaiting"
    if state.refusal is not None:
        return "refused"
    if not state.complete:
        return "stalled" if state.stalled else slowness or "pending"
    return "green" if state.is_all_green else "red"


def appearance_of(outcome: Outcome, state: LightsState | None) -> dict[str, Any]:
    """Return the title, texts and lights that the page draws, in the active language; without a state, all lights are
    pending."""
    lights = state.services if state else dict.fromkeys(settings.SIGNUP_SERVICES, Light("PENDING"))
    took = state.took if state else {}
    kind = state.kind if state else "signUp"
    words = outcomes(kind)[outcome]
    return {
        "outcome": outcome,
        "stage": STAGES.get(outcome, 0),
        "title": str(words["title"]),
        "text": outcome_text(words, (name_of(service) for service, light in lights.items() if light.status == "FAIL")),
        "action": words.get("action"),
        "next": reverse("login") if outcome == "green" and kind == "signUp" else None,
        "isOver": outcome == "lapsed" or (state is not None and state.complete),
        "errors": refusal_errors(state.refusal) if state and state.refusal is not None else {},
        "lights": [
            shown_light(service, light.status, light.reason, shows_reasons=live.SIGNUP_REASONS, kind=kind)
            | {"took": took_of(took.get(service))}
            for service, light in lights.items()
        ],
    }


def page_message(transaction_id: UUID, outcome: Outcome, state: LightsState | None, /, **also: Any) -> dict[str, Any]:
    """Return a message of the WebSocket. The script gets the same in answers over HTTP."""
    named = {} if state and state.kind != "signUp" else {"signupId": str(transaction_id)}
    return {**named, **also, "shown": appearance_of(outcome, state)}


def state_message(transaction_id: UUID, state: LightsState, *, slowness: Slowness | None = None) -> dict[str, Any]:
    """Return a new state as a message: auth's own document, and what to draw."""
    return page_message(transaction_id, outcome_of(state, slowness=slowness), state, **json.loads(state.text))
