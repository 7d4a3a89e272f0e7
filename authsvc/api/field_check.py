"""What the API would find wrong with a form's fields, while they are being typed."""

from django.http import HttpRequest, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_POST

from authsvc.api.signup_requests import complaints


@require_POST
@never_cache
@sensitive_post_parameters()
def check(request: HttpRequest) -> JsonResponse:
    """What `POST /user` would find wrong with these fields of the form, by field, while they are being typed. Whether a
    user ID or an email address is taken is not said here."""
    return JsonResponse({"errors": complaints(request.POST.dict())})
