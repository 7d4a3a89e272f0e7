from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class EventBusConfig(AppConfig):
    name = "eventbus"
    verbose_name = _("Event bus")
