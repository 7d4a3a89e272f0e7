from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class ScimServiceConfig(AppConfig):
    name = "scimsvc"
    verbose_name = _("SCIM services")
