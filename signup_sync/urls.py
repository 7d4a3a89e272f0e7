"""The pages, by service. The API, the health pages and the static files are not here: see asgi.py."""

from django.contrib import admin
from django.urls import include, path
from django.utils.translation import gettext_lazy as _
from django.views.generic import RedirectView

admin.site.site_header = admin.site.site_title = "Signup Sync"
admin.site.index_title = _("Administration")

urlpatterns = [
    path("", RedirectView.as_view(pattern_name="front:signup")),
    path("signup/", include("signup_sync.front.urls")),
    path("", include("authsvc.urls")),
    path("admin/", admin.site.urls),
]
