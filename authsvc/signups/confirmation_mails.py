"""The mails to the address of an unconfirmed sign-up. They hold nothing that was typed: whoever signs up with somebody
else's address must not be able to send them a text (docs/adr/0042)."""

from functools import partial
from uuid import UUID

from django.conf import settings
from django.core.mail import EmailMessage

from authsvc.mail import mail_from, public_link, send_later
from authsvc.models import UnconfirmedSignUp, User
from authsvc.rate_limits import TooManyError, attempt_limits
from authsvc.signups.confirmation import token_for


def mail_soon(signup_id: UUID, *, address: str | None, language: str) -> None:
    """Mails what there is to do about this sign-up, which came from this network address. Call it once the request is
    answered: which mail it is depends on who exists, and no answer may."""
    send_later(partial(compose, signup_id, address=address), language=language)


def compose(signup_id: UUID, *, address: str | None) -> EmailMessage | None:
    """The mail, in the language that is active. None where the sign-up is no longer unconfirmed, or its mailbox has had
    enough mails in the last hour."""
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
