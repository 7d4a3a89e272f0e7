"""Links that confirm the new email address of an account (docs/adr/0062)."""

from typing import Final, Literal

from django.conf import settings
from django.core import signing

from authsvc.accounts.sessions import has_password_hash
from authsvc.models import User
from authsvc.signups.confirmation import can_mail
from livesettings.values import live

# Seconds for which a link is valid: as long as a password reset link.
VALID_FOR: Final = 3600
_SALT: Final = "address-change"


class AddressLinkError(Exception):
    """The link can't be used, for this reason. `another` means that it belongs to another account."""

    def __init__(self, reason: Literal["expired", "another"]) -> None:
        super().__init__(reason)
        self.reason = reason


def must_be_confirmed() -> bool:
    """Whether a new address is used only after its owner has confirmed it."""
    return live.SIGNUP_CONFIRM == "mail" or (settings.HAS_MAIL_SERVER and can_mail())


def token_for(user: User, email: str) -> str:
    """Return the secret part of the link that gives this account this address.

    It is bound to the account's version, so it works once, and to the password: an owner who chooses a new password
    also stops a change that somebody else with the old one has begun.
    """
    proof = user.get_session_auth_hash()
    return signing.dumps([user.owner_signup_id.hex, user.version, email, proof], salt=_SALT)


def address_in(token: str, user: User) -> str:
    """Return the address that the token gives the account of `user`. Raise AddressLinkError."""
    try:
        owner, version, email, proof = signing.loads(token, salt=_SALT, max_age=VALID_FOR)
    except signing.BadSignature:
        raise AddressLinkError("expired") from None
    if owner != user.owner_signup_id.hex:
        raise AddressLinkError("another")
    if version != user.version or not has_password_hash(user, proof):
        raise AddressLinkError("expired")
    return str(email)
