from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _
from django.utils.translation import gettext_noop

# The name beside its light: pages translate the service's own name, which is a setting, with a capital letter.
LIGHT_NAME = gettext_noop("Auth")


class AuthServiceConfig(AppConfig):
    name = "authsvc"
    verbose_name = _("Auth service")

    def ready(self) -> None:
        # Each registers something: a system check, receivers of signals.
        from authsvc.accounts import admin_sessions, password_mails, security_events  # noqa: F401
        from authsvc.signups import confirmation, retention  # noqa: F401
