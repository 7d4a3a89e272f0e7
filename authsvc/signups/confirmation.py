"""Sign-ups that wait until their email address is confirmed, with the live setting SIGNUP_CONFIRM=mail (docs/adr/0042).

Nothing here looks for users by what was typed before the confirmation: what an answer says, and how long it takes,
must not depend on them. authsvc.signups.confirmation_mails looks for them, after the answer.
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

from authsvc.models import DATABASE, SignUp, UnconfirmedSignUp, User
from authsvc.signups.registration import KeyTakenError, NewSignUp, Registration, register_within
from livesettings.values import LiveSettings, rule
from runtime.database.transactions import atomically
from runtime.processes.roles import SERVE_CHECKS


class UnusableLinkError(Exception):
    """The link of a confirmation mail confirms nothing, for this reason."""

    def __init__(self, reason: Literal["unknown", "expired", "used"]) -> None:
        super().__init__(reason)
        self.reason = reason


def can_mail() -> bool:
    """Whether mails reach people. In production a mail server must be named: the log is no place for links."""
    if settings.PRODUCTION:
        return settings.HAS_MAIL_SERVER and settings.EMAIL_BACKEND.endswith(".smtp.EmailBackend")
    return not settings.EMAIL_BACKEND.endswith(".dummy.EmailBackend")


@register(SERVE_CHECKS)
def check_mail_server(**options: Any) -> list[CheckMessage]:
    """The error that keeps `serve` from starting where confirmation could never come."""
    if settings.SIGNUP_CONFIRM != "mail" or can_mail():
        return []
    return [
        Error(
            "SIGNUP_CONFIRM is mail, but no mail server is set: nobody could confirm an address.",
            hint="Set EMAIL_URL, as smtp+tls://user:password@mail.example.org:587, or SIGNUP_CONFIRM to none.",
            id="authsvc.E010",
        )
    ]


@rule
def check_live_confirmation(values: LiveSettings) -> Iterator[tuple[tuple[str, ...], str]]:
    """The same for administrators who turn it on while everything runs."""
    if values.SIGNUP_CONFIRM == "mail" and not can_mail():
        yield ("SIGNUP_CONFIRM",), _("Confirmation by mail needs a mail server: have EMAIL_URL set first.")


def keep(new: NewSignUp) -> tuple[UnconfirmedSignUp | SignUp, bool]:
    """Saves a sign-up that is to be confirmed, unless its id is there already. Returns what there is now, which is a
    SignUp where it is confirmed already, and whether it was saved now. Raises KeyTakenError."""
    return atomically(lambda: _keep(new), using=DATABASE)


def _keep(new: NewSignUp) -> tuple[UnconfirmedSignUp | SignUp, bool]:
    # In this order: whoever commits the user in between has saved the sign-up too, and a confirmation that commits in
    # between has deleted the one row and saved the other.
    is_taken = User.objects.filter(owner_signup_id=new.signup_id).exists()
    earlier = (
        UnconfirmedSignUp.objects.filter(id=new.signup_id).first() or SignUp.objects.filter(id=new.signup_id).first()
    )
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
    """The sign-up that the token confirms, and when that was made. Raises UnusableLinkError."""
    try:
        signup_id, _hyphen, microseconds = _signer().unsign(token).partition("-")
    except signing.BadSignature:
        raise UnusableLinkError("unknown") from None
    created_at = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=int(microseconds))
    if created_at <= oldest():
        raise UnusableLinkError("expired")
    return UUID(signup_id), created_at


def confirm(token: str) -> Registration:
    """Registers the sign-up that the token confirms, exactly once. Raises UnusableLinkError, or what register_users()
    raises. The caller has compared the password, which takes too long for a transaction and never changes in a row.

    Of several that confirm at the same time, one deletes the row; the others wait for it and find none.
    """
    signup_id, created_at = read_token(token)
    return atomically(lambda: _confirm(signup_id, created_at), using=DATABASE)


def row_of(token: str) -> UnconfirmedSignUp:
    """The row that the token confirms. Raises UnusableLinkError where that is none now."""
    signup_id, created_at = read_token(token)
    row = UnconfirmedSignUp.objects.filter(id=signup_id, created_at=created_at).first()
    if row is None:
        raise _gone(signup_id)
    return row


def _confirm(signup_id: UUID, created_at: datetime) -> Registration:
    row = UnconfirmedSignUp.objects.select_for_update().filter(id=signup_id, created_at=created_at).first()
    if row is None:
        raise _gone(signup_id)
    UnconfirmedSignUp.objects.filter(id=signup_id).delete()
    [outcome] = register_within(
        [
            NewSignUp(
                signup_id=row.id,
                user_id=row.user_id,
                email=row.email,
                user_name=row.user_name,
                role=row.role,
                password=row.password,
            )
        ]
    )
    if isinstance(outcome, KeyTakenError):
        raise outcome
    return outcome


def _gone(signup_id: UUID) -> UnusableLinkError:
    return UnusableLinkError("used") if SignUp.objects.filter(id=signup_id).exists() else UnusableLinkError("expired")


def _signer() -> signing.Signer:
    # Not made with the module: the relay imports that, and has no SECRET_KEY.
    return signing.Signer(salt="signup-confirmation")


def _microseconds(at: datetime) -> int:
    return (at - datetime.fromtimestamp(0, UTC)) // timedelta(microseconds=1)


def oldest() -> datetime:
    """What was made before then has expired."""
    return timezone.now() - timedelta(hours=settings.SIGNUP_CONFIRM_HOURS)


def expired() -> QuerySet[UnconfirmedSignUp]:
    """The sign-ups that nobody has confirmed in time, the oldest first."""
    return UnconfirmedSignUp.objects.filter(created_at__lte=oldest()).order_by("created_at")


def delete_expired(limit: int) -> int:
    """Deletes `limit` of the expired at most, in one transaction; how many."""
    with transaction.atomic(using=DATABASE):
        ids = list(expired().select_for_update(skip_locked=True).values_list("id", flat=True)[:limit])
        UnconfirmedSignUp.objects.filter(id__in=ids).delete()
    return len(ids)
