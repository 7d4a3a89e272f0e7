"""Who may see which sign-up (DESIGN, invariant 9; docs/adr/0007).

The browser has an anonymous, signed cookie of its own, which outlives the change of session at login. A page ticket
names one sign-up and that cookie, and is worth nothing without it. A bearer ticket opens the sign-up at auth's API
and never reaches the browser.
"""

import secrets
import time
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Final
from uuid import UUID

from django.conf import settings
from django.core import signing
from django.http import HttpResponseBase
from django.utils.crypto import salted_hmac
from uuid_utils.compat import uuid7

BROWSER_COOKIE: Final = f"{settings.COOKIE_PREFIX}signup_browser"
USER_ID_COOKIE: Final = f"{settings.COOKIE_PREFIX}signup_user_id"
# Seconds after a sign-up in which the login form knows its user ID.
USER_ID_MAX_AGE: Final = 3600
_PAGE_SALT: Final = "signup-page-ticket"
# The contents that one form may sign up with: each that was changed costs every later post a question more.
CONTENTS_MAX: Final = 8
_cookie_signer = signing.Signer(salt="signup-browser")
_confirmation_signer = signing.Signer(salt="signup-confirmation")
_bearer_signer = signing.TimestampSigner(salt="signup-ticket")
_address_signer = signing.TimestampSigner(salt="signup-address")


class TicketError(Exception):
    """The ticket is no genuine one, or another browser's."""


class TicketExpiredError(TicketError):
    """The ticket is this browser's, but older than TICKET_MAX_AGE."""


def new_signup_id() -> UUID:
    """A UUIDv7, as auth wants it."""
    return uuid7()


def signup_ids_of(first: UUID) -> Iterator[UUID]:
    """The sign-ups of one form, `first` being the one that it was rendered with. A content belongs to the first of
    them that has no other content: whatever the form said in between, and whichever answer was lost, it ends there."""
    signup_id = first
    for _ in range(CONTENTS_MAX):
        yield signup_id
        signup_id = successor_of(signup_id)


def successor_of(signup_id: UUID) -> UUID:
    """The next sign-up of the same form: a UUIDv7 (RFC 9562, section 5.7) of the same time, its random bits a secret
    function of its predecessor, so that every process finds the same one and nobody else can."""
    digest = salted_hmac("signup-successor", signup_id.bytes, algorithm="sha256").digest()
    time, random = signup_id.int >> 80 << 80, int.from_bytes(digest[:10])
    version, variant = 0xF << 76, 0b11 << 62
    return UUID(int=time | random & ~(version | variant) | 0x7 << 76 | 0b10 << 62)


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


def remember_user_id(response: HttpResponseBase, user_id: str) -> None:
    """Tells auth's login page, in this browser, who has just signed up. It is signed, as what a page shows in its
    fields must not be another site's."""
    response.set_cookie(
        USER_ID_COOKIE,
        signing.dumps(user_id, salt="signup-user-id"),
        max_age=USER_ID_MAX_AGE,
        httponly=True,
        samesite="Lax",
        secure=settings.PRODUCTION,
    )


def bearer_ticket(signup_id: UUID) -> str:
    """A ticket for auth's API: whoever holds the signing key may issue one."""
    return _bearer_signer.sign(str(signup_id))


def signed_address(signup_id: UUID, address: str) -> str:
    """For auth's API: for whom this sign-up is posted. Auth counts by it, and sees only the gateway otherwise."""
    return _address_signer.sign(f"{signup_id} {address}")


def confirmed_by(token: str) -> UUID:
    """The sign-up that the token in a mail's link confirms, as far as its signature tells; auth knows the rest.

    Raises TicketExpiredError for one that is older than SIGNUP_CONFIRM_HOURS, and TicketError for a forged one.
    """
    try:
        signup_id, _, microseconds = _confirmation_signer.unsign(token).partition("-")
    except signing.BadSignature:
        raise TicketError from None
    if time.time() - int(microseconds) / 1_000_000 >= settings.SIGNUP_CONFIRM_HOURS * 3600:
        raise TicketExpiredError
    return UUID(signup_id)


def signed_by_front() -> str:
    """For auth's API, in the place of an address: the request is the front's own, for which HTTP may be plain."""
    return _address_signer.sign("-")


def page_ticket(signup_id: UUID, browser: str) -> str:
    return signing.dumps({"s": str(signup_id), "b": browser}, salt=_PAGE_SALT)


def open_page_ticket(ticket: str, browser: str | None) -> UUID:
    """The sign-up that the ticket opens to this browser. Raises TicketExpiredError or TicketError."""
    signup_id = signup_id_of(ticket, browser)
    if is_older(ticket, settings.TICKET_MAX_AGE):
        raise TicketExpiredError
    return signup_id


def is_older(ticket: str, seconds: float) -> bool:
    """Whether this page ticket, a genuine one, was issued longer ago."""
    try:
        signing.loads(ticket, salt=_PAGE_SALT, max_age=timedelta(seconds=seconds))
    except signing.SignatureExpired:
        return True
    return False


def is_recent(ticket: str, seconds: float) -> bool:
    """Whether this page ticket, a genuine one, was issued no longer ago. One that is as far in the future is not
    either: the clock has been put back since, and nobody knows how old it is (docs/adr/0017)."""
    return is_older(ticket, -seconds) and not is_older(ticket, seconds)


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
