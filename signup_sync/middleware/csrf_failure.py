"""Django's CSRF_FAILURE_VIEW, which its checks import in every role: also in those that have no key to sign with."""

from django.http import HttpRequest, HttpResponse


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    from signup_sync.front.signup_form import csrf_failure

    return csrf_failure(request, reason)
