from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class EventSearchConfig(AppConfig):
    name = "eventsearch"
    verbose_name = _("Event search")
