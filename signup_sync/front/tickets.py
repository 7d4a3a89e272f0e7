"""Who may see which sign-up (DESIGN, invariant 9; docs/adr/0007).

The browser has an anonymous, signed cookie of its own, which outlives the change of session at login. A page ticket
names one sign-up and that cookie, and is worth nothing without it. A bearer ticket opens the sign-up at auth's API
and never reaches the browser.
"""

import secrets
from collections.abc import Mapping
from typing import Final
from uuid import UUID

from django.conf import settings
from django.core import signing
from django.http import HttpResponseBase
from uuid_utils.compat import uuid7

BROWSER_COOKIE: Final = "signup_browser"
_PAGE_SALT: Final = "signup-page-ticket"
_cookie_signer = signing.Signer(salt="signup-browser")
_bearer_signer = signing.TimestampSigner(salt="signup-ticket")


class TicketError(Exception):
    """The ticket is no genuine one, or another browser's."""


class TicketExpiredError(TicketError):
    """The ticket is this browser's, but older than TICKET_MAX_AGE."""


def new_signup_id() -> UUID:
    """A UUIDv7, as auth wants it."""
    return uuid7()


def new_browser() -> str:
    return secrets.token_urlsafe(16)


def browser_of(cookies: Mapping[str, str]) -> str | None:
    """The anonymous browser of these cookies, None where there is no genuine one."""
    try:
        return _cookie_signer.unsign(cookies.get(BROWSER_COOKIE, ""))
    except signing.BadSignature:
        return None


def remember_browser(response: HttpResponseBase, browser: str) -> None:
    response.set_cookie(
        BROWSER_COOKIE, _cookie_signer.sign(browser), httponly=True, samesite="Lax", secure=settings.PRODUCTION
    )


def bearer_ticket(signup_id: UUID) -> str:
    """A ticket for auth's API: whoever holds the signing key may issue one."""
    return _bearer_signer.sign(str(signup_id))


def page_ticket(signup_id: UUID, browser: str) -> str:
    return signing.dumps({"s": str(signup_id), "b": browser}, salt=_PAGE_SALT)


def open_page_ticket(ticket: str, browser: str | None) -> UUID:
    """The sign-up that the ticket opens to this browser. Raises TicketExpiredError or TicketError."""
    signup_id = signup_id_of(ticket, browser)
    try:
        signing.loads(ticket, salt=_PAGE_SALT, max_age=settings.TICKET_MAX_AGE)
    except signing.SignatureExpired:
        raise TicketExpiredError from None
    return signup_id


def signup_id_of(ticket: str, browser: str | None) -> UUID:
    """The sign-up that the ticket names, however old it is: what a form that was left open posts again.

    Raises TicketError.
    """
    try:
        claims = signing.loads(ticket, salt=_PAGE_SALT)
    except signing.BadSignature:
        raise TicketError from None
    if browser is None or claims["b"] != browser:
        raise TicketError
    return UUID(claims["s"])
