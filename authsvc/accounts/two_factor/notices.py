"""Mails about an account's second factor.

The address may be unconfirmed, so the mail contains nothing from the account, not even its user ID.
"""

from functools import partial
from typing import Any, Final

from django.utils.translation import gettext_lazy as _

from authsvc.accounts.two_factor import devices
from authsvc.mail import mail_from, public_link, send_later
from authsvc.models import User
from runtime.security_log import SecurityEvent, log_security_event

_WORDS: Final[dict[SecurityEvent, Any]] = {
    "two_factor_enabled": _("Two-factor authentication was turned on for your account."),
    "two_factor_disabled": _("Two-factor authentication was turned off for your account."),
    "two_factor_reset": _("An administrator turned off two-factor authentication for your account."),
    "two_factor_failed": _("Someone who knows your password entered several wrong codes for your account."),
    "recovery_codes_renewed": _("New recovery codes were created for your account. The old ones no longer work."),
    "recovery_code_used": _("One of your account's recovery codes was used. It can't be used again."),
}


def record(event: SecurityEvent, user: User, *, actor: str | None = None, address: str | None = None) -> None:
    """Log an event of the user's second factor and notify the user. `actor` defaults to the user."""
    log_security_event(event, actor=actor or user.user_id, subject=actor and user.user_id, address=address)
    send_notice(event, user)


def send_notice(event: SecurityEvent, user: User) -> None:
    link = public_link("password_reset")
    send_later(partial(mail_from, "authsvc/two_factor", to=user.email, what=_WORDS[event], link=link))


def reset(user: User, *, actor: str, address: str | None = None) -> bool:
    """Turn off a user's second factor on behalf of `actor`. Return False if there was none."""
    was_on = devices.turn_off(user)
    if was_on:
        record("two_factor_reset", user, actor=actor, address=address)
    return was_on
