"""Security headers for responses that Django doesn't produce (docs/adr/0047)."""

from functools import cache
from typing import Final

from django.http import HttpRequest, HttpResponse
from django.middleware.security import SecurityMiddleware

# Defaults for responses that don't set these headers. The policy is for non-pages; Django's pages set their own.
DEFAULT_HEADERS: Final = (
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cross-origin-resource-policy", b"same-origin"),
)

Headers = list[tuple[bytes, bytes]]


@cache
def security_headers(*, is_secure: bool) -> Headers:
    """Return the headers that Django's SecurityMiddleware would set, and DEFAULT_HEADERS. They include HSTS if
    `is_secure` and HSTS_SECONDS is not 0."""
    request = HttpRequest()
    request._get_scheme = lambda: "https" if is_secure else "http"  # type: ignore[attr-defined]
    response = HttpResponse(headers={"Content-Type": "none"})
    SecurityMiddleware(lambda _: response).process_response(request, response)
    del response.headers["Content-Type"]
    django = [(name.lower().encode(), value.encode()) for name, value in response.headers.items()]
    return [*django, *DEFAULT_HEADERS]
