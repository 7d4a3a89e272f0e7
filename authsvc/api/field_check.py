"""Validate the sign-up form's fields while they are being typed, by the API's rules."""

from django.http import HttpRequest, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_POST

from authsvc.api.signup_requests import complaints


@require_POST
@never_cache
@sensitive_post_parameters()
def check_fields(request: HttpRequest) -> JsonResponse:
    """Return, by field, the errors that `POST /user` would report for the form's fields that are filled in. It never
    reveals whether a user ID or an email address is taken."""
    return JsonResponse({"errors": complaints(request.POST.dict())})
