from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class AuthServiceConfig(AppConfig):
    name = "authsvc"
    verbose_name = _("Auth service")

    def ready(self) -> None:
        # Registers the system check.
        from authsvc import retention  # noqa: F401
