"""Django's CSRF_FAILURE_VIEW. Django's checks import it in every role, including those without a signing key, so it
imports the form only when called."""

from django.http import HttpRequest, HttpResponse


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    from signup_sync.front.signup_form import handle_outdated_token

    return handle_outdated_token(request, reason)
