"""The logout of the account page and of the administration."""

from typing import Any

from django.contrib.auth import views as django_views
from django.http import HttpResponse


class LogoutView(django_views.LogoutView):
    """Also clear the lights kept in the browser's sessionStorage. No page is in its cache."""

    def post(self, *args: Any, **kwargs: Any) -> HttpResponse:
        response = super().post(*args, **kwargs)
        response.headers["Clear-Site-Data"] = '"storage"'
        return response
