"""The pages, by service. The API, the health pages and the static files are not here: see asgi.py."""

from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView

urlpatterns = [
    path("", RedirectView.as_view(pattern_name="front:signup")),
    path("signup/", include("signup_sync.front.urls")),
    path("", include("authsvc.urls")),
    path("admin/", admin.site.urls),
]
