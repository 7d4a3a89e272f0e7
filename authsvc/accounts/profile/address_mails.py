"""Mails about a new email address, to the new one and to the former one. They contain no user-supplied text: changing
to another person's address must not be a way to send that person a message (docs/adr/0042)."""

from functools import partial
from typing import Any

from django.core.mail import EmailMessage
from django.db import transaction
from django.dispatch import receiver
from django.utils import timezone

from authsvc.accounts.profile.address_links import token_for
from authsvc.mail import mail_from, public_link, send_later
from authsvc.models import DATABASE, User, address_replaced
from authsvc.rate_limits import TooManyError, attempt_limits


def ask_to_confirm(user: User, email: str, *, address: str | None) -> None:
    """Queue the mail with the link to the new address, and a notice to the present one. `address` is the network
    address of the request.

    Whether the new address has an account is looked up in the mail thread, so neither the result nor the response time
    reveals it.
    """
    token = token_for(user, email)
    send_later(partial(_confirmation, email, token, address=address))
    send_later(partial(_notice_of_request, user.email, address=address))


def _confirmation(email: str, token: str, *, address: str | None) -> EmailMessage | None:
    has_account = User.objects.filter(email=email).exists()
    try:
        attempt_limits().count_mail("confirm", email=email, address=address)
    except TooManyError:
        return None
    if has_account:
        links = {"login": public_link("login"), "password": public_link("password_reset")}
        return mail_from("authsvc/address_known", to=email, **links)
    return mail_from("authsvc/address_confirm", to=email, link=public_link("address", token=token))


def _notice_of_request(email: str, *, address: str | None) -> EmailMessage | None:
    try:
        # Counted apart from confirmations: strangers can use those up by signing up with this address.
        attempt_limits().count_mail("address", email=email, address=address)
    except TooManyError:
        return None
    return mail_from("authsvc/address_requested", to=email, link=public_link("password_reset"))


@receiver(address_replaced)
def notify_former_address(sender: Any, *, user: User, former: str, **kwargs: Any) -> None:
    """Notify the former address of every new address, in the language of the request that set it."""
    compose = partial(mail_from, "authsvc/address_replaced", to=former, at=timezone.localtime())
    transaction.on_commit(lambda: send_later(compose), using=DATABASE)
