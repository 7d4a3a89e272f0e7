"""Redirect from a saved change or removal to the page with its lights."""

from typing import Final

from django.conf import settings
from django.http import HttpResponseRedirect

from authsvc.models import EventTransaction
from authsvc.tickets import issue_ticket

# The front reads this cookie, because a removal ends the session that could otherwise prove who may see the lights.
CHANGE_COOKIE: Final = f"{settings.COOKIE_PREFIX}change_ticket"
CHANGES_PATH: Final = "/changes/"
CHANGE_MAX_AGE: Final = 3600


def lights_path(row: EventTransaction) -> str:
    """Return the path of the front's page with the lights of this change or removal."""
    return f"{CHANGES_PATH}{row.id}/"


def redirect_to_lights(row: EventTransaction) -> HttpResponseRedirect:
    """Redirect to the lights, which this browser may see for an hour even if its session ends."""
    response = HttpResponseRedirect(lights_path(row))
    response.set_cookie(
        CHANGE_COOKIE,
        issue_ticket(row.id),
        max_age=CHANGE_MAX_AGE,
        # Browsers reject a cookie whose name begins with __Host- if it has another path.
        path="/",
        httponly=True,
        samesite="Lax",
        secure=settings.PRODUCTION,
    )
    return response
