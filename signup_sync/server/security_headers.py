"""The security headers of whatever is no page of Django's (docs/adr/0047)."""

from functools import cache
from typing import Final

from django.http import HttpRequest, HttpResponse
from django.middleware.security import SecurityMiddleware

# For every answer that does not say otherwise itself. The policy is for what is no page: Django's have their own.
DEFAULTS: Final = (
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cross-origin-resource-policy", b"same-origin"),
)

Headers = list[tuple[bytes, bytes]]


@cache
def security_headers(*, is_secure: bool) -> Headers:
    """What Django's SecurityMiddleware puts on a page, by Django's own settings, and ours. HSTS is among them where
    `is_secure` and HSTS_SECONDS is set."""
    request = HttpRequest()
    request._get_scheme = lambda: "https" if is_secure else "http"  # type: ignore[attr-defined]
    response = HttpResponse(headers={"Content-Type": "none"})
    SecurityMiddleware(lambda _: response).process_response(request, response)
    del response.headers["Content-Type"]
    django = [(name.lower().encode(), value.encode()) for name, value in response.headers.items()]
    return [*django, *DEFAULTS]
