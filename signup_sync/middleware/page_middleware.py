"""The pages' middleware that Django does not have, and the policy of what content they may use."""

import re
from typing import Any, Final

from asgiref.sync import sync_to_async
from django.contrib.auth.middleware import AuthenticationMiddleware
from django.core.exceptions import BadRequest
from django.http import HttpRequest, HttpResponseBase
from django.utils.deprecation import MiddlewareMixin
from django.utils.functional import SimpleLazyObject

from authsvc.accounts.two_factor.rules import admitted
from runtime.untrusted import is_longer_than

# Our own files alone, sockets too; no script or style stands in a page. `data:` are the pictures in Django admin's CSS.
POLICY: Final = (
    "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)
# No page uses any of these features, so a script that an attacker injects can't use them either.
PERMISSIONS: Final = "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()"
# Bytes of a field or a parameter, and of a search term: each of its words becomes a condition for each searched column.
FIELD_MAX: Final = 4 * 1024
SEARCH_MAX: Final = 256
# Names of the parameters that hold search terms: of the administration's lists, and of its autocompleted fields.
SEARCHES: Final = ("q", "term")
# Names of the fields with which the administration's lists say which rows were chosen, and what is done with them.
CHOSEN: Final = ("_selected_action", "action")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")


class MeasuredFields(MiddlewareMixin):
    """Refuses a field of a query or a form that is longer than any of ours needs, or that no database takes
    (docs/adr/0038), before any form, list or filter of the administration gets it. The query and the form as a whole
    are measured by signup_sync.server.request_size."""

    def process_request(self, request: HttpRequest) -> HttpResponseBase | None:
        for name, values in request.GET.lists():
            most = SEARCH_MAX if name in SEARCHES else FIELD_MAX
            if any(is_longer_than(most, text) for text in (name, *values)):
                raise BadRequest("a parameter of the query is too long")
            if not all(map(_is_storable, (name, *values))):
                raise BadRequest("a parameter of the query has a character that no database takes")
        if request.method == "POST":
            for name, values in request.POST.lists():
                if any(is_longer_than(FIELD_MAX, text) for text in (name, *values)):
                    raise BadRequest("a field of the form is too long")
                # What people type is told by the form. Of what the administration's lists post, nothing is.
                if name in CHOSEN and not all(map(_is_storable, values)):
                    raise BadRequest("a chosen row has a character that no database takes")
        return None


def _is_storable(text: str) -> bool:
    """PostgreSQL fails on a NUL, and every database on half of a surrogate pair."""
    return "\0" not in text and not _SURROGATE.search(text)


class Authentication(AuthenticationMiddleware):
    """Sets `request.user` and `request.auser()`, which ask the database only when they are used. A session whose user
    has a second factor that it has not proved counts as nobody's, on every page (docs/adr/0046)."""

    def process_request(self, request: HttpRequest) -> None:
        super().process_request(request)
        user, auser = request.user, request.auser

        async def admitted_later() -> Any:
            return await sync_to_async(admitted)(request.session, await auser())

        vars(request)["user"] = SimpleLazyObject(lambda: admitted(request.session, user))
        vars(request)["auser"] = admitted_later


class ContentSecurityPolicy(MiddlewareMixin):
    """Puts the policies on every page, the admin's too. Django has such a middleware from 6.0."""

    def process_response(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        response.headers.setdefault("Content-Security-Policy", POLICY)
        response.headers.setdefault("Permissions-Policy", PERMISSIONS)
        return response
