"""The texts about a sign-up, a change or a removal that users read."""

from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal

from django.utils.text import format_lazy
from django.utils.translation import gettext_lazy as _

from livesettings.values import live
from signup_sync.front.states import Kind

Outcome = Literal["pending", "awaiting", "delayed", "stalled", "green", "red", "refused", "lapsed", "absent", "unknown"]

# Formats for the time that a light took: the upper limit in milliseconds, the milliseconds of one unit, and the text.
TOOK: Final = (
    (100, 1, _("instantly")),
    (100_000, 1000, _("{n} s")),
    (6_000_000, 60_000, _("{n} min")),
    (172_800_000, 3_600_000, _("{n} h")),
    (None, 86_400_000, _("{n} d")),
)
# Auth's reasons for refusing: the field concerned, and what to do.
REFUSALS: Final = {
    "duplicate: userId": (
        "userId",
        _("This user ID is taken. Choose another one, or log in if the account is yours."),
    ),
    "duplicate: email": (
        "email",
        _("An account with this email address already exists. Use another address, or log in if the account is yours."),
    ),
}
UNKNOWN_REFUSAL: Final = _("This sign-up was refused. Change your details and try again.")

# Each outcome's title, explanation, and the next step offered, if any.
OUTCOMES: Final[Mapping[Outcome, Mapping[str, Any]]] = {
    "pending": {
        "title": _("Creating your account"),
        "text": _("Each service is setting up your account. You can leave this page; the setup continues without it."),
    },
    "awaiting": {
        "title": _("Check your email"),
        "text": _(
            "We sent a message to your address. Open the link in it, on any device, to create your account. "
            "The link works for a limited time. If nothing arrives, look in your spam folder, or go back and "
            "check the address."
        ),
        "action": "form",
    },
    "delayed": {
        "title": _("This is taking longer than usual"),
        "text": _("Nothing is lost. You can leave this page and log in; the setup continues in the background."),
        "action": "login",
    },
    "stalled": {
        "title": _("A service is not responding"),
        "text": _(
            "Your sign-up is saved, and an administrator can see it. Your account already works, so you can "
            "log in. The rest is set up when the service is back."
        ),
        "action": "login",
    },
    "green": {
        "title": _("Your account is ready"),
        "text": _("Every service has set up your account. Taking you to the login page…"),
        "action": "login",
    },
    "red": {
        "title": _("Your account exists"),
        "text": _(
            "{services} already had this user, so nothing was changed there. Your account works, and you can log in."
        ),
        "action": "login",
    },
    "refused": {
        "title": _("This account already exists"),
        "text": _("No new account was created. Log in if the account is yours, or use different details in the form."),
        "action": "form",
    },
    "lapsed": {
        "title": _("The link has expired"),
        "text": _("Your address was not confirmed in time, so no account was created. Fill in the form again."),
        "action": "form",
    },
    "absent": {
        "title": _("Your sign-up is on its way"),
        "text": _("It has not arrived yet. If nothing changes within a minute, fill in the form again."),
        "action": "form",
    },
    # Without a state, it is not known whether this is a sign-up, a change or a removal.
    "unknown": {
        "title": _("We cannot check the progress right now"),
        "text": _("The services continue in the background, and this page keeps checking."),
    },
}
# The same for the other kinds of event transactions. They read well for the account's owner and for an administrator.
OUTCOMES_OF_CHANGES: Final[Mapping[Outcome, Mapping[str, Any]]] = {
    **OUTCOMES,
    "pending": {
        "title": _("Saving the changes"),
        "text": _("Each service is updating its copy of the account. You can leave this page; the update continues."),
        "action": "account",
    },
    "delayed": {
        "title": _("This is taking longer than usual"),
        "text": _("The changes are saved. The remaining services follow as soon as they can."),
        "action": "account",
    },
    "stalled": {
        "title": _("A service is not responding"),
        "text": _("The changes are saved, and an administrator can see which service does not have them yet."),
        "action": "account",
    },
    "green": {
        "title": _("The changes are saved"),
        "text": _("Every service has updated its copy of the account."),
        "action": "account",
    },
    "red": {
        "title": _("The changes are saved, but not everywhere"),
        "text": _(
            "{services} could not apply them, for the reason beside the light. Nothing was changed there. An "
            "administrator can see this."
        ),
        "action": "account",
    },
}
OUTCOMES_OF_REMOVALS: Final[Mapping[Outcome, Mapping[str, Any]]] = {
    **OUTCOMES,
    "pending": {
        "title": _("Removing the account"),
        "text": _("Each service is deleting its copy. You can leave this page; the removal continues."),
    },
    "delayed": {
        "title": _("This is taking longer than usual"),
        "text": _("The account is removed here. The remaining services delete their copies as soon as they can."),
    },
    "stalled": {
        "title": _("A service is not responding"),
        "text": _("The account is removed here, and an administrator can see which service still has a copy."),
    },
    "green": {
        "title": _("The account is removed"),
        "text": _("Every service has deleted its copy. The user ID and the email address are free again."),
    },
    "red": {
        "title": _("The account is removed, but not everywhere"),
        "text": _("{services} could not delete the copy, for the reason beside the light."),
    },
}
CHANGE_NOTICES: Final = {
    "foreign": _("There is no such change, or it was made to another account."),
    "away": _("We cannot show the change right now. It is saved. Reload this page in a moment."),
}
# Replacements for use while the live settings hide the reasons of services.
WITHOUT_REASONS: Final[Mapping[Outcome, Mapping[str, Any]]] = {
    "red": {
        "title": _("Your account exists"),
        "text": _("{services} refused, so nothing was changed there. Your account works, and you can log in."),
        "action": "login",
    },
    "refused": {
        "title": _("This sign-up was refused"),
        "text": _("No new account was created. Log in if you have one, or use different details in the form."),
        "action": "form",
    },
}
NOTICES: Final = {
    "closed": _("Sign-up is closed at the moment. Try again later, or log in if you have an account."),
    "lost": _("The connection is lost. Reconnecting; what you see may be out of date."),
    "polling": _("Live updates are not available at the moment, so this page checks every few seconds."),
    "unseen": format_lazy("{title}. {text}", **OUTCOMES["unknown"]),
    "unanswered": _(
        "There is no answer to your form yet. This page is waiting for it and checking the progress of your sign-up."
    ),
    "back": _("The connection is back."),
    "expired": _("This page has expired and shows no more updates. The services continue without it; try logging in."),
    "expiredAwaiting": _(
        "This page has expired and shows no more updates. If you have not opened the link in our email "
        "yet, open it now. If the link has expired, sign up again."
    ),
    "foreign": _("This page belongs to another browser, so it cannot show updates here."),
    "noAnswer": _(
        "The connection was lost before an answer arrived. What you entered is still here: try again. "
        "You will not be signed up twice."
    ),
    "stale": _(
        "This page has expired, or your browser blocks cookies from this site. What you entered is still "
        "here: copy it, allow cookies, and reload the page."
    ),
    "tooLong": _("This is too long to send. What you entered is still here: shorten it and try again."),
    "broken": _("Something went wrong on our side. What you entered is still here: try again in a moment."),
}
# Pages for links in mails that can't be confirmed: title, what to do, and the next step offered, if any.
LINKS: Final[Mapping[str, Mapping[str, Any]]] = {
    "unknown": {
        "title": _("This link is incomplete"),
        "text": _("Copy the whole link from the email into the address bar. If that does not help, sign up again."),
        "action": "form",
    },
    "expired": {**OUTCOMES["lapsed"], "title": _("This link has expired")},
    "used": {
        "title": _("Your address is already confirmed"),
        "text": _("This link works only once and has already been used. Log in with the password that you chose."),
        "action": "login",
    },
    "away": {
        "title": _("We cannot confirm your address right now"),
        "text": _("The link still works. Reload this page in a moment."),
    },
}
MISMATCH: Final = _("The two passwords do not match. Enter both again.")
# Messages shown while the form is being filled in, in addition to auth's.
CHECK_MESSAGES: Final = {"goodPassword": _("You can use this password."), "mismatch": MISMATCH}


def outcomes(kind: Kind = "signUp") -> Mapping[Outcome, Mapping[str, Any]]:
    """Return each outcome's title, explanation, and the next step offered, if any."""
    if kind != "signUp":
        return OUTCOMES_OF_CHANGES if kind == "change" else OUTCOMES_OF_REMOVALS
    return OUTCOMES if live.SIGNUP_REASONS else {**OUTCOMES, **WITHOUT_REASONS}


def notices() -> Mapping[str, Any]:
    """Return the notices shown beside the lights, by name."""
    if live.SIGNUP_CONFIRM == "none":
        return NOTICES
    return {**NOTICES, "expired": NOTICES["expiredAwaiting"]}


def took_of(milliseconds: int | None) -> str:
    """Format the time that a light took; "" if it is unknown."""
    if milliseconds is None:
        return ""
    _limit, unit, words = next(row for row in TOOK if row[0] is None or milliseconds < row[0])
    n = milliseconds / unit
    return str(words).replace("{n}", f"{n:.1f}" if n < 10 else f"{n:.0f}")


def outcome_text(outcome: Mapping[str, Any], red: Iterable[str]) -> str:
    """Return an outcome's text, with the names of the services whose light is red."""
    return str(outcome["text"]).replace("{services}", ", ".join(red))


def refusal_errors(reason: str) -> dict[str, list[str]]:
    """Return the form's errors for auth's reason, by field; "" stands for the whole form."""
    field, text = REFUSALS.get(reason, ("", UNKNOWN_REFUSAL))
    return {field: [str(text)]}
