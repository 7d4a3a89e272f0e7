"""Signed tickets and cookies, which decide who may see which sign-up (docs/adr/0007).

The browser has an anonymous, signed cookie, which survives the change of session at login. A page ticket names one
sign-up and that cookie, and is worthless without it. A bearer ticket grants access to the sign-up at auth's API and
never reaches the browser.
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
# Auth sets this cookie with the ticket of the change that this browser has just made. It works even after a removal has
# ended the session.
CHANGE_COOKIE: Final = f"{settings.COOKIE_PREFIX}change_ticket"
# Seconds after a sign-up for which the login form is prefilled with its user ID.
USER_ID_MAX_AGE: Final = 3600
_PAGE_SALT: Final = "signup-page-ticket"
# The number of different contents that one form may post: each change costs every later post one more request.
CONTENTS_MAX: Final = 8
_cookie_signer = signing.Signer(salt="signup-browser")
_confirmation_signer = signing.Signer(salt="signup-confirmation")
_bearer_signer = signing.TimestampSigner(salt="signup-ticket")
_address_signer = signing.TimestampSigner(salt="signup-address")


class TicketError(Exception):
    """The ticket is forged, or belongs to another browser."""


class TicketExpiredError(TicketError):
    """The ticket is genuine, but too old."""


def new_signup_id() -> UUID:
    """Return a new UUIDv7, which auth requires."""
    return uuid7()


def signup_ids_of(first: UUID, browser: str) -> Iterator[UUID]:
    """Yield the sign-up ids of one form, starting with the one that it was rendered with. A content belongs to the
    first id that is not used for other content. Posting the same content again therefore always finds the same id,
    whatever was posted in between and even if a response was lost."""
    signup_id = first
    for _ in range(CONTENTS_MAX):
        yield signup_id
        signup_id = successor_of(signup_id, browser)


def successor_of(signup_id: UUID, browser: str) -> UUID:
    """Return the next sign-up id of the same form: a UUIDv7 (RFC 9562, section 5.7) with the same time. Its random bits
    are a hash of its predecessor, keyed with the browser's id. So every process derives the same id, even after
    SECRET_KEY was replaced, and nobody else can.
    """
    digest = salted_hmac("signup-successor", signup_id.bytes, secret=browser, algorithm="sha256").digest()
    time, random = signup_id.int >> 80 << 80, int.from_bytes(digest[:10])
    version, variant = 0xF << 76, 0b11 << 62
    return UUID(int=time | random & ~(version | variant) | 0x7 << 76 | 0b10 << 62)


def new_browser() -> str:
    return secrets.token_urlsafe(16)


def browser_of(cookies: Mapping[str, str]) -> str | None:
    """Return the anonymous browser id from the cookies, or None if it is missing or forged."""
    try:
        return _cookie_signer.unsign(cookies.get(BROWSER_COOKIE, ""))
    except signing.BadSignature:
        return None


def remember_browser(response: HttpResponseBase, browser: str) -> None:
    response.set_cookie(
        BROWSER_COOKIE, _cookie_signer.sign(browser), httponly=True, samesite="Lax", secure=settings.PRODUCTION
    )


def remember_user_id(response: HttpResponseBase, user_id: str) -> None:
    """Let the login page in this browser prefill the user ID that has just signed up. The cookie is signed, so that
    another site can't choose what the page shows."""
    response.set_cookie(
        USER_ID_COOKIE,
        signing.dumps(user_id, salt="signup-user-id"),
        max_age=USER_ID_MAX_AGE,
        httponly=True,
        samesite="Lax",
        secure=settings.PRODUCTION,
    )


def bearer_ticket(signup_id: UUID) -> str:
    """Return a ticket for auth's API. Any holder of the signing key can issue one."""
    return _bearer_signer.sign(str(signup_id))


def opens(ticket: str, transaction_id: UUID) -> bool:
    """Whether this is a valid ticket of the API for this event transaction."""
    try:
        return _bearer_signer.unsign(ticket, max_age=settings.TICKET_MAX_AGE) == str(transaction_id)
    except signing.BadSignature:
        return False


def signed_address(signup_id: UUID, address: str) -> str:
    """Sign the client address on whose behalf a sign-up is posted. Auth's rate limits use it, because auth itself only
    sees the gateway."""
    return _address_signer.sign(f"{signup_id} {address}")


def confirmed_by(token: str) -> UUID:
    """Return the sign-up that the token in a mail's link confirms. Only the signature and the age are checked here;
    auth checks the rest.

    Raises TicketExpiredError if it is older than SIGNUP_CONFIRM_HOURS, and TicketError if it is forged.
    """
    try:
        signup_id, _, microseconds = _confirmation_signer.unsign(token).partition("-")
    except signing.BadSignature:
        raise TicketError from None
    if time.time() - int(microseconds) / 1_000_000 >= settings.SIGNUP_CONFIRM_HOURS * 3600:
        raise TicketExpiredError
    return UUID(signup_id)


def signed_by_front() -> str:
    """Sign a request to auth's API as the front's own, without an address. Such requests may use plain HTTP."""
    return _address_signer.sign("-")


def page_ticket(signup_id: UUID, browser: str) -> str:
    return signing.dumps({"s": str(signup_id), "b": browser}, salt=_PAGE_SALT)


def open_page_ticket(ticket: str, browser: str | None) -> UUID:
    """Return the sign-up that the ticket lets this browser see. Raises TicketExpiredError or TicketError."""
    signup_id = signup_id_of(ticket, browser)
    if is_older(ticket, settings.TICKET_MAX_AGE):
        raise TicketExpiredError
    return signup_id


def is_older(ticket: str, seconds: float) -> bool:
    """Whether this genuine page ticket was issued more than so many seconds ago."""
    try:
        signing.loads(ticket, salt=_PAGE_SALT, max_age=timedelta(seconds=seconds))
    except signing.SignatureExpired:
        return True
    return False


def is_recent(ticket: str, seconds: float) -> bool:
    """Whether this genuine page ticket was issued at most so many seconds ago. A ticket from further in the future
    isn't recent: the clock has been set back since, so its age is unknown (docs/adr/0017)."""
    return is_older(ticket, -seconds) and not is_older(ticket, seconds)


def signup_id_of(ticket: str, browser: str | None) -> UUID:
    """Return the sign-up that the ticket names, however old the ticket is: a form may have been open for long.

    Raises TicketError.
    """
    try:
        claims = signing.loads(ticket, salt=_PAGE_SALT)
    except signing.BadSignature:
        raise TicketError from None
    if browser is None or claims["b"] != browser:
        raise TicketError
    return UUID(claims["s"])
