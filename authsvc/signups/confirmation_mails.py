"""Mails to the address of an unconfirmed sign-up. They contain none of the submitted text: signing up with another
person's address must not be a way to send that person a message (docs/adr/0042)."""

from functools import partial
from uuid import UUID

from django.conf import settings
from django.core.mail import EmailMessage

from authsvc.mail import mail_from, public_link, send_later
from authsvc.models import UnconfirmedSignUp, User
from authsvc.rate_limits import TooManyError, attempt_limits
from authsvc.signups.confirmation import token_for


def mail_soon(signup_id: UUID, *, address: str | None, language: str) -> None:
    """Queue the mail that this sign-up needs; `address` is the network address that it came from. Call this after the
    response is sent: which mail it is depends on whether the user exists, and the response must not."""
    send_later(partial(compose, signup_id, address=address), language=language)


def compose(signup_id: UUID, *, address: str | None) -> EmailMessage | None:
    """Return the mail, in the active language; None if the sign-up no longer awaits confirmation or its mailbox has
    reached the hourly limit of mails."""
    unconfirmed = UnconfirmedSignUp.objects.filter(id=signup_id).first()
    if unconfirmed is None:
        return None
    has_account = User.objects.filter(email=unconfirmed.email).exists()
    is_id_taken = User.objects.filter(user_id_key=unconfirmed.user_id_key).exists()
    try:
        attempt_limits().count_mail("confirm", email=unconfirmed.email, address=address)
    except TooManyError:
        return None
    if has_account:
        links = {"login": public_link("login"), "password": public_link("password_reset")}
        return mail_from("authsvc/confirm_known", to=unconfirmed.email, **links)
    if is_id_taken:
        return mail_from("authsvc/confirm_taken", to=unconfirmed.email, form=public_link("front:signup"))
    link = public_link("front:confirm", token=token_for(unconfirmed))
    return mail_from("authsvc/confirm", to=unconfirmed.email, link=link, hours=settings.SIGNUP_CONFIRM_HOURS)
