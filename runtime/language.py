"""Switch a page's language without losing what was entered in its form."""

from collections.abc import Callable

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.utils.translation import check_for_language, get_language, override
from django.views.i18n import set_language


def in_other_language(request: HttpRequest, render: Callable[[], HttpResponse]) -> HttpResponse:
    """Return the response of `render` in the language of the button that was pressed inside the form.

    A cookie stores the choice. An unknown language changes nothing."""
    switched = set_language(request)
    language = request.POST["language"]
    with override(language if check_for_language(language) else get_language()):
        response = render()
        response["Content-Language"] = get_language() or settings.LANGUAGE_CODE
    response.cookies.update(switched.cookies)
    return response
