"""URLs of the pages. asgi.py routes the API, the health endpoints and the static files."""

from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView
from django.views.i18n import set_language
from django_otp.plugins.otp_static.models import StaticDevice
from django_otp.plugins.otp_totp.models import TOTPDevice

from signup_sync.front.change_page import change

admin.autodiscover()
# These pages would show the secrets of other people's second factors.
admin.site.unregister([TOTPDevice, StaticDevice])

urlpatterns = [
    path("", RedirectView.as_view(pattern_name="front:signup")),
    path("signup/", include("signup_sync.front.urls")),
    path("docs/", include("signup_sync.front.contracts.urls")),
    path("changes/<uuid:change_id>/", change, name="change"),
    path("", include("authsvc.urls")),
    path("language/", set_language, name="set_language"),
    path("admin/", admin.site.urls),
]
