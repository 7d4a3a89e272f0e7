# Import the module, not the class: Django would mistake an AppConfig class in this namespace for this app's own.
from django.contrib.admin import apps


class AdministrationConfig(apps.AdminConfig):
    """Replaces django.contrib.admin in INSTALLED_APPS."""

    default = False
    default_site = "signup_sync.administration.site.Administration"

    def ready(self) -> None:
        super().ready()
        from django.contrib.admin import site
        from django_otp.plugins.otp_static.models import StaticDevice
        from django_otp.plugins.otp_totp.models import TOTPDevice

        # These pages would show the secrets of other people's second factors.
        site.unregister([TOTPDevice, StaticDevice])
