"""What people read about a sign-up. The page's script gets the same words, so that both draw the same."""

from collections.abc import Mapping
from typing import Any, Final, Literal

from django.utils.translation import gettext_lazy as _

from livesettings.values import live
from signup_sync.front.states import Light, State

Outcome = Literal["pending", "delayed", "green", "red", "refused", "absent", "unknown"]

STATUSES: Final = {
    "PENDING": _("Waiting for its answer"),
    "SUCCESS": _("Ready"),
    "FAIL": _("Already knew this user"),
}
# A red light's words where its reason says more.
REASONS: Final = {
    "duplicate: userId": _("Already knew this user ID"),
    "duplicate: email": _("Already knew this email address"),
}
# Why auth refuses: the field that it is about, and what to do.
REFUSALS: Final = {
    "duplicate: userId": (
        "userId",
        _("This user ID is taken. Choose another one, or log in if the account is yours."),
    ),
    "duplicate: email": (
        "email",
        _("An account with this email address exists. Use another address, or log in if the account is yours."),
    ),
}
UNKNOWN_REFUSAL: Final = _("This sign-up was refused. Change what you typed and try again.")

# For each outcome a title, what it means, and which way to go on is offered.
OUTCOMES: Final[Mapping[Outcome, Mapping[str, Any]]] = {
    "pending": {
        "title": _("Creating your account"),
        "text": _("Each service takes you in by itself. You may leave this page: it goes on without you."),
        "action": None,
    },
    "delayed": {
        "title": _("This takes longer than usual"),
        "text": _("Nothing is lost. You may leave this page and log in: the rest follows by itself."),
        "action": "login",
    },
    "green": {
        "title": _("Your account is ready"),
        "text": _("Every service knows you now. Taking you to the login page…"),
        "action": "login",
    },
    "red": {
        "title": _("Your account exists"),
        "text": _(
            "{services} already knew this user, so nothing was changed there. Your account works: go on to log in."
        ),
        "action": "login",
    },
    "refused": {
        "title": _("There is such an account already"),
        "text": _("No new account was made. Log in if the account is yours, or choose other details in the form."),
        "action": "form",
    },
    "absent": {
        "title": _("Your sign-up is on its way"),
        "text": _("It has not arrived yet. If nothing changes within a minute, fill in the form again."),
        "action": "form",
    },
    "unknown": {
        "title": _("We cannot see your sign-up right now"),
        "text": _("It goes on all the same. This page looks again by itself."),
        "action": None,
    },
}
# In place of theirs while the live settings hide why a service refused.
WITHOUT_REASONS: Final[Mapping[Outcome, Mapping[str, Any]]] = {
    "red": {
        "title": _("Your account exists"),
        "text": _("{services} refused, so nothing was changed there. Your account works: go on to log in."),
        "action": "login",
    },
    "refused": {
        "title": _("This sign-up was refused"),
        "text": _("No new account was made. Log in if you have one, or choose other details in the form."),
        "action": "form",
    },
}
REFUSED: Final = _("Refused")
NOTICES: Final = {
    "closed": _("Nobody new can sign up at the moment. Try again later, or log in if you have an account."),
    "lost": _("The connection is lost. Trying to get it back; what you see may be out of date."),
    "expired": _("This page is too old to show more. Your sign-up goes on; try to log in."),
    "foreign": _("This page belongs to another browser, so it shows no more here."),
    "noAnswer": _(
        "The connection was lost before there was an answer. What you typed is still here: try again. "
        "You cannot be signed up twice by it."
    ),
    "stale": _(
        "This page is too old to be sent, or your browser keeps no cookies of this site. What you typed is still "
        "here: copy it, allow cookies, and load the page again."
    ),
    "tooLong": _("This is too long to be sent. What you typed is still here: shorten it and try again."),
    "broken": _("Something went wrong on our side. What you typed is still here: try again in a moment."),
}


def statuses() -> Mapping[str, Any]:
    """A light's status in words, where no reason says more."""
    return STATUSES if live.SIGNUP_REASONS else {**STATUSES, "FAIL": REFUSED}


def outcomes() -> Mapping[Outcome, Mapping[str, Any]]:
    """For each outcome a title, what it means, and which way to go on is offered."""
    return OUTCOMES if live.SIGNUP_REASONS else {**OUTCOMES, **WITHOUT_REASONS}


def name_of(service: str) -> str:
    return service.capitalize()


def word_of(light: Light) -> str:
    """A light's status in words."""
    return str(
        REASONS.get(light.reason or "", statuses()["FAIL"]) if light.status == "FAIL" else STATUSES[light.status]
    )


def outcome_of(state: State, *, is_delayed: bool) -> Outcome:
    """What a state means for the person. The script has the same rule."""
    if state.refusal is not None:
        return "refused"
    if not state.complete:
        return "delayed" if is_delayed else "pending"
    return "green" if state.is_all_green else "red"


def text_of(outcome: Outcome, state: State | None) -> str:
    """An outcome's text, with the names of the services whose light is red."""
    lights = state.services.items() if state else ()
    red = ", ".join(name_of(service) for service, light in lights if light.status == "FAIL")
    return str(outcomes()[outcome]["text"]).replace("{services}", red)


def for_script() -> dict[str, Any]:
    return {
        "statuses": statuses(),
        "reasons": REASONS,
        "refusals": {reason: {"field": field, "text": text} for reason, (field, text) in REFUSALS.items()},
        "unknownRefusal": UNKNOWN_REFUSAL,
        "outcomes": outcomes(),
        "notices": NOTICES,
    }
