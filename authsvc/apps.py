from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy

# The label of auth's light. Pages translate the service name, which comes from a setting, with a capital letter.
LIGHT_NAME = pgettext_lazy("service", "Auth")


class AuthServiceConfig(AppConfig):
    name = "authsvc"
    verbose_name = _("Auth service")

    def ready(self) -> None:
        # Imported for their side effects: they register system checks and signal receivers.
        from authsvc.accounts import admin_sessions, password_mails, security_events  # noqa: F401
        from authsvc.accounts.profile import address_mails  # noqa: F401
        from authsvc.signups import confirmation, registration, retention  # noqa: F401
