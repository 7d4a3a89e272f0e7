"""Sign-ups that wait until their email address is confirmed, with the live setting SIGNUP_CONFIRM=mail (docs/adr/0042).

Before the confirmation, nothing here looks up users by the submitted fields: neither the response nor its timing may
reveal whether a user exists. authsvc.signups.confirmation_mails looks them up after the response is sent.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from uuid import UUID

from django.conf import settings
from django.core import signing
from django.core.checks import CheckMessage, Error, register
from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _

from authsvc.lights import Kind
from authsvc.models import DATABASE, SignUp, UnconfirmedSignUp, User
from authsvc.signups.registration import KeyTakenError, NewSignUp, Registration, register_within
from livesettings.values import LiveSettings, rule
from runtime.database.transactions import atomically
from runtime.processes.roles import SERVE_CHECKS


class ConfirmationLinkError(Exception):
    """The link of a confirmation mail can't be used, for this reason."""

    def __init__(self, reason: Literal["unknown", "expired", "used"]) -> None:
        super().__init__(reason)
        self.reason = reason


def can_mail() -> bool:
    """Whether mails reach people. Production requires a mail server, because links must not go to the log."""
    if settings.PRODUCTION:
        return settings.HAS_MAIL_SERVER and settings.EMAIL_BACKEND.endswith(".smtp.EmailBackend")
    return not settings.EMAIL_BACKEND.endswith(".dummy.EmailBackend")


@register(SERVE_CHECKS)
def check_mail_server(**options: Any) -> list[CheckMessage]:
    """Keep `serve` from starting if sign-ups need confirmation but mails can't be sent."""
    if settings.SIGNUP_CONFIRM != "mail" or can_mail():
        return []
    return [
        Error(
            "SIGNUP_CONFIRM is mail, but no mail server is configured, so nobody could confirm an address.",
            hint="Set EMAIL_URL, e.g. to smtp+tls://user:password@mail.example.org:587, or set SIGNUP_CONFIRM to none.",
            id="authsvc.E010",
        )
    ]


@rule
def check_live_confirmation(values: LiveSettings) -> Iterator[tuple[tuple[str, ...], str]]:
    """The same check for an administrator who enables confirmation at run time."""
    if values.SIGNUP_CONFIRM == "mail" and not can_mail():
        yield ("SIGNUP_CONFIRM",), _("Confirmation by email needs a mail server. Set EMAIL_URL first.")


@atomically(DATABASE)
def save_unconfirmed(new: NewSignUp) -> tuple[UnconfirmedSignUp | SignUp, bool]:
    """Save a sign-up that awaits confirmation, unless its ID exists already. Return the stored row (a SignUp if it has
    been confirmed) and whether this call saved it. Raise KeyTakenError."""
    # The order of the queries matters: a transaction that commits the user in between has saved the sign-up too, and a
    # confirmation that commits in between has deleted the unconfirmed row and saved the sign-up.
    is_taken = User.objects.filter(owner_signup_id=new.signup_id).exists()
    # The base manager also finds changes and removals, because a client may choose any ID.
    earlier = (
        UnconfirmedSignUp.objects.filter(id=new.signup_id).first()
        or SignUp._base_manager.filter(id=new.signup_id).first()
    )
    if isinstance(earlier, SignUp) and earlier.kind != Kind.SIGNUP:
        raise KeyTakenError
    if earlier is not None:
        return earlier, False
    if is_taken:
        raise KeyTakenError
    return UnconfirmedSignUp.objects.create(**new.columns()), True


def token_for(unconfirmed: UnconfirmedSignUp) -> str:
    """The secret part of the link that confirms this row and no other.

    The signature covers the time at which the row was made. Without it, a link to an address of the attacker's own
    would also confirm a later row that has the same id and somebody else's address.
    """
    return _signer().sign(f"{unconfirmed.id.hex}-{_microseconds(unconfirmed.created_at)}")


def read_token(token: str) -> tuple[UUID, datetime]:
    """Return the ID and creation time of the sign-up that the token confirms. Raise ConfirmationLinkError."""
    try:
        signup_id, _hyphen, microseconds = _signer().unsign(token).partition("-")
    except signing.BadSignature:
        raise ConfirmationLinkError("unknown") from None
    created_at = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=int(microseconds))
    if created_at <= oldest():
        raise ConfirmationLinkError("expired")
    return UUID(signup_id), created_at


def confirm(token: str) -> Registration:
    """Register the sign-up that the token confirms, exactly once. Raise ConfirmationLinkError, or the errors of
    register_users(). The caller has checked the password before: that is too slow for a transaction, and a row's
    password never changes.

    Of several concurrent confirmations, one deletes the row; the others wait for its lock and then find no row.
    """
    return _confirm(*read_token(token))


def row_of(token: str) -> UnconfirmedSignUp:
    """Return the row that the token confirms. Raise ConfirmationLinkError if there is none any more."""
    return _row_in(UnconfirmedSignUp.objects.all(), *read_token(token))


def _row_in(rows: QuerySet[UnconfirmedSignUp], signup_id: UUID, created_at: datetime) -> UnconfirmedSignUp:
    row = rows.filter(id=signup_id, created_at=created_at).first()
    if row is None:
        raise ConfirmationLinkError("used" if SignUp.objects.filter(id=signup_id).exists() else "expired")
    return row


@atomically(DATABASE)
def _confirm(signup_id: UUID, created_at: datetime) -> Registration:
    row = _row_in(UnconfirmedSignUp.objects.select_for_update(), signup_id, created_at)
    UnconfirmedSignUp.objects.filter(id=signup_id).delete()
    [outcome] = register_within([NewSignUp.of(row.id, row, may_be_repeated=True)])
    if isinstance(outcome, KeyTakenError):
        raise outcome
    return outcome


def _signer() -> signing.Signer:
    # Created on use: the relay imports this module but has no SECRET_KEY.
    return signing.Signer(salt="signup-confirmation")


def _microseconds(at: datetime) -> int:
    return (at - datetime.fromtimestamp(0, UTC)) // timedelta(microseconds=1)


def oldest() -> datetime:
    """The creation time at or before which an unconfirmed sign-up has expired."""
    return timezone.now() - timedelta(hours=settings.SIGNUP_CONFIRM_HOURS)


def expired() -> QuerySet[UnconfirmedSignUp]:
    """The sign-ups that were not confirmed in time, oldest first."""
    return UnconfirmedSignUp.objects.filter(created_at__lte=oldest()).order_by("created_at")


def delete_expired(limit: int) -> int:
    """Delete at most `limit` expired sign-ups in one transaction. Return how many were deleted."""
    with transaction.atomic(using=DATABASE):
        ids = list(expired().select_for_update(skip_locked=True).values_list("id", flat=True)[:limit])
        UnconfirmedSignUp.objects.filter(id__in=ids).delete()
    return len(ids)
