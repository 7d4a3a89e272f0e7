"""Who has just signed up in this browser, as the front's cookie says: the login begins with that user ID."""

from collections.abc import Mapping
from typing import Final

from django.conf import settings
from django.core import signing

# What the front leaves in a browser that has signed up, and for how many seconds it is good.
USER_ID_COOKIE: Final = f"{settings.COOKIE_PREFIX}signup_user_id"
USER_ID_MAX_AGE: Final = 3600


def user_id_of(cookies: Mapping[str, str]) -> str:
    """The user ID that has just signed up in this browser, "" where there is none."""
    try:
        user_id: str = signing.loads(cookies.get(USER_ID_COOKIE, ""), salt="signup-user-id", max_age=USER_ID_MAX_AGE)
    except signing.BadSignature:
        return ""
    return user_id
