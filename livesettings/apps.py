from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class LiveSettingsConfig(AppConfig):
    name = "livesettings"
    verbose_name = _("Live settings")
