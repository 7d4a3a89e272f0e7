"""Mails about passwords. They contain no user-supplied text, not even a name: the address may belong to someone who
did not sign up, and who would read a stranger's text in our mail."""

from functools import partial
from typing import Any

from django.contrib.auth.tokens import default_token_generator
from django.core.mail import EmailMessage
from django.db import transaction
from django.dispatch import receiver
from django.utils import timezone
from django.utils.encoding import force_bytes
from django.utils.http import urlsafe_base64_encode

from authsvc.accounts.passwords import NOT_CHOSEN
from authsvc.mail import mail_from, public_link, send_later
from authsvc.models import User, password_replaced
from authsvc.rate_limits import TooManyError, attempt_limits
from runtime.equality import normalize_email
from runtime.security_log import log_security_event


def send_reset_link(email: str, *, address: str | None) -> None:
    """Send a reset link to the account with this email address, if there is one.

    The account is looked up in the mail thread, so neither the result nor the response time reveals whether it exists.
    """
    send_later(partial(_reset_mail, email, address))


def _reset_mail(email: str, address: str | None) -> EmailMessage | None:
    user = User.objects.filter(email=normalize_email(email), is_active=True).first()
    if user is None or not (user.has_usable_password() or user.password == NOT_CHOSEN):
        log_security_event("password_reset_requested", address=address, detail="no account has this email address")
        return None
    try:
        attempt_limits().count_mail("reset", email=user.email, address=address)
    except TooManyError as reached:
        # The response has already been sent and is the same either way.
        log_security_event("password_reset_throttled", subject=user.user_id, address=address, detail=reached.limit)
        return None
    log_security_event("password_reset_requested", subject=user.user_id, address=address)
    uid = urlsafe_base64_encode(force_bytes(user.pk))
    link = public_link("password_reset_confirm", uidb64=uid, token=default_token_generator.make_token(user))
    return mail_from("authsvc/password_reset", to=user.email, link=link)


@receiver(password_replaced)
def notify_of_new_password(sender: Any, *, user: User, **kwargs: Any) -> None:
    """Notify the account's owner of every new password, in the language of the request that set it."""
    at, link = timezone.localtime(), public_link("password_reset")
    compose = partial(mail_from, "authsvc/password_replaced", to=user.email, at=at, link=link)
    transaction.on_commit(lambda: send_later(compose))
