"""The ASGI application of the web process and of the auth instances behind the gateway.

The API is a plain ASGI application beside Django, because Django's handler creates an executor per request and holds a
thread per open stream (docs/adr/0003).
"""

import os
from collections.abc import Awaitable
from importlib import import_module
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "signup_sync.settings")

from django.conf import settings
from django.core.asgi import get_asgi_application

from signup_sync.configuration.production import require_signing_key

require_signing_key()
django_application = get_asgi_application()

from channels.routing import ProtocolTypeRouter, URLRouter
from django.contrib.staticfiles.finders import get_finders
from django.core.management.base import BaseCommand
from django.urls import URLPattern, re_path
from servestatic import ServeStaticASGI
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from authsvc.api.application import SignUpApi
from eventbus.inspection.attendance import attendance
from livesettings.following import Follower
from runtime.processes.roles import SERVE_CHECKS, START_CHECKS
from signup_sync.front.sockets import websocket_application
from signup_sync.server import health
from signup_sync.server.request_size import Measured, is_for_api
from signup_sync.server.transport import HttpsOnly, SecurityHeaders
from signup_sync.server.web_instance import WebInstance

# The other roles are management commands, which run the system checks themselves.
BaseCommand().check(tags=[START_CHECKS, SERVE_CHECKS])

api = SignUpApi()
follower = Follower()
follower.start()
if settings.WEB_ROLE == "web":
    attendance.start()
    import_module(settings.ROOT_URLCONF)  # otherwise the first visitor would wait for the pages' modules


def static_files() -> ServeStaticASGI:
    """Serve the static files from the apps' folders; without `collectstatic`, none can be missing or stale."""
    application = ServeStaticASGI(None, allow_all_origins=False)
    for finder in get_finders():
        for path, storage in finder.list(ignore_patterns=None):
            url = f"{settings.STATIC_URL}{path}"
            if url not in application.files:  # the first finder wins, as with `collectstatic`
                application.add_file_to_dictionary(url, storage.path(path))
    return application


def route(pattern: str, application: Any) -> URLPattern:
    """Wrap `re_path`: URLRouter accepts ASGI applications, but the type stubs of `re_path` accept only views."""
    routed: URLPattern = re_path(pattern, application)
    return routed


pages = URLRouter(
    [
        route(r"^health/", health.application),
        route(r"^metrics$", health.application),
        route(r"^static/", static_files()),
        route(r"", django_application),
    ]
)


def http(scope: Any, receive: Any, send: Any) -> Awaitable[None]:
    """Dispatch API requests without the router, which would keep a copy of the scope while a stream is open."""
    return (api if is_for_api(scope["path"]) else pages)(scope, receive, send)


protocols = ProtocolTypeRouter({"http": http, "websocket": websocket_application})
# The server doesn't do this, because the server of `runserver` trusts X-Forwarded-For from any client. Inside this
# middleware, `client` is the person's address and `scheme` the scheme that the person's browser used.
# It wraps Measured, whose refusals need the scheme for their headers. It is safe there: the server reads at most 16 KiB
# of a request's head (signup_sync.server.http_protocol).
believing_proxies = ProxyHeadersMiddleware(Measured(HttpsOnly(protocols)), trusted_hosts=settings.TRUSTED_PROXIES)
application = WebInstance(SecurityHeaders(believing_proxies))
