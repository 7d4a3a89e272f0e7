"""Middleware for the pages that Django lacks, and their content security policy."""

import asyncio
import re
from collections.abc import Callable
from typing import Any, Final

from asgiref.sync import SyncToAsync, ThreadSensitiveContext, iscoroutinefunction, sync_to_async
from django.contrib import messages
from django.contrib.auth import logout
from django.contrib.auth.middleware import AuthenticationMiddleware, auser, get_user
from django.core.exceptions import BadRequest
from django.db import connections
from django.http import HttpRequest, HttpResponseBase, HttpResponseRedirect
from django.urls import reverse
from django.utils.deprecation import MiddlewareMixin
from django.utils.functional import SimpleLazyObject
from django.utils.translation import gettext as _

from authsvc.accounts.two_factor.rules import admitted
from authsvc.models import NoSuchAccountError, User
from runtime.text_length import is_longer_than

# Only our own origin, including sockets; pages have no inline scripts or styles. Django admin's CSS has `data:` images.
POLICY: Final = (
    "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)
# No page uses these features, so they are disabled for any script that an attacker might inject.
PERMISSIONS: Final = "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()"
# Maximum bytes of a field or parameter, and of a search term, each word of which adds a condition per searched column.
FIELD_MAX: Final = 4 * 1024
SEARCH_MAX: Final = 256
# Parameters with search terms: those of the admin's lists and of its autocompleted fields.
SEARCHES: Final = ("q", "term")
# Fields with which the admin's lists post the selected rows and the action.
CHOSEN: Final = ("_selected_action", "action")
# Seconds for which a request keeps its thread while its view runs: forms that auth answers at once need no second one.
RELEASED_AFTER: Final = 0.1
_SURROGATE: Final = re.compile("[\ud800-\udfff]")


class MeasuredFields(MiddlewareMixin):
    """Refuses fields of a query or form that are longer than any of ours needs, or that no database can store
    (docs/adr/0038), before any form, list or filter reads them. signup_sync.server.request_size limits the query and
    the form as a whole."""

    def process_request(self, request: HttpRequest) -> HttpResponseBase | None:
        for name, values in request.GET.lists():
            most = SEARCH_MAX if name in SEARCHES else FIELD_MAX
            if any(is_longer_than(most, text) for text in (name, *values)):
                raise BadRequest("a parameter of the query is too long")
            if not all(map(_is_storable, (name, *values))):
                raise BadRequest("a parameter of the query has a character that no database can store")
        if request.method == "POST":
            for name, values in request.POST.lists():
                if any(is_longer_than(FIELD_MAX, text) for text in (name, *values)):
                    raise BadRequest("a field of the form is too long")
                # Forms report invalid characters in typed text. For the fields of the admin's lists, nothing else does.
                if name in CHOSEN and not all(map(_is_storable, values)):
                    raise BadRequest("a chosen row has a character that no database can store")
        return None


def _is_storable(text: str) -> bool:
    """Whether databases can store the text: PostgreSQL can't store NUL, and none can store a lone surrogate."""
    return "\0" not in text and not _SURROGATE.search(text)


class Authentication(AuthenticationMiddleware):
    """Sets `request.user` and `request.auser()`, which query the database lazily. On every page, a session that lacks
    its user's second factor counts as anonymous (docs/adr/0046)."""

    def process_request(self, request: HttpRequest) -> None:
        super().process_request(request)
        session: Any = request.session

        def admitted_now() -> Any:
            with session.keeping_key():
                user = get_user(request)
            return admitted(session, user)

        async def admitted_later() -> Any:
            with session.keeping_key():
                user = await auser(request)
            return await sync_to_async(admitted)(session, user)

        vars(request)["user"] = SimpleLazyObject(admitted_now)
        vars(request)["auser"] = admitted_later


class RemovedAccounts(MiddlewareMixin):
    """Answers a request whose account was removed while it was handled: its owner is logged out, and an administrator
    sees the list of users."""

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponseBase | None:
        if not isinstance(exception, NoSuchAccountError):
            return None
        is_owner = request.user.pk is None or not User.objects.filter(pk=request.user.pk).exists()
        if is_owner:
            logout(request)
        messages.error(request, _("This account has been removed."))
        return HttpResponseRedirect(reverse("login" if is_owner else "admin:authsvc_user_changelist"))


class ContentSecurityPolicy(MiddlewareMixin):
    """Sets the policies on every page, including the admin. Django 6.0 introduces such a middleware."""

    def process_response(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        response.headers.setdefault("Content-Security-Policy", POLICY)
        response.headers.setdefault("Permissions-Policy", PERMISSIONS)
        return response


class ThreadRelease(MiddlewareMixin):
    """Ends the thread of a request whose asynchronous view takes long: forms that wait for auth hold no threads.

    Under ASGI, Django runs synchronous middleware in a thread that belongs to the request and lives as long as it
    (asgiref's ThreadSensitiveContext). If the thread was ended, the hooks after the view start another one
    (docs/adr/0075). This must be the last middleware.
    """

    async def process_view(self, request: HttpRequest, view: Callable[..., Any], args: Any, kwargs: Any) -> None:
        context = SyncToAsync.thread_sensitive_context.get(None)
        if context is not None and iscoroutinefunction(view):
            asyncio.get_running_loop().call_later(RELEASED_AFTER, _end_thread, context)


def _end_thread(context: ThreadSensitiveContext) -> None:
    # None if the request is complete.
    if thread := SyncToAsync.context_to_thread_executor.pop(context, None):
        # Connections belong to a thread, which finishes what it is doing first.
        thread.submit(connections.close_all)
        thread.shutdown(wait=False)
