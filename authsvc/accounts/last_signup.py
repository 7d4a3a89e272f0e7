"""Read the front's cookie with the user ID that just signed up in this browser, to prefill the login form."""

from collections.abc import Mapping
from typing import Final

from django.conf import settings
from django.core import signing

# Cookie that the front sets after a sign-up, and how many seconds it is valid.
USER_ID_COOKIE: Final = f"{settings.COOKIE_PREFIX}signup_user_id"
USER_ID_MAX_AGE: Final = 3600


def user_id_of(cookies: Mapping[str, str]) -> str:
    """Return the user ID that just signed up in this browser, or ""."""
    try:
        user_id: str = signing.loads(cookies.get(USER_ID_COOKIE, ""), salt="signup-user-id", max_age=USER_ID_MAX_AGE)
    except signing.BadSignature:
        return ""
    return user_id
