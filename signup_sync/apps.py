# The module and not the class: Django would take a class that stands here for this app's own.
from django.contrib.admin import apps


class AdministrationConfig(apps.AdminConfig):
    """Stands for django.contrib.admin in INSTALLED_APPS."""

    default = False
    default_site = "signup_sync.administration.site.Administration"

    def ready(self) -> None:
        super().ready()
        from django.contrib.admin import site
        from django_otp.plugins.otp_static.models import StaticDevice
        from django_otp.plugins.otp_totp.models import TOTPDevice

        # Their pages show the secrets of other people's second factor.
        site.unregister([TOTPDevice, StaticDevice])
