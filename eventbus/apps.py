from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class EventBusConfig(AppConfig):
    name = "eventbus"
    verbose_name = _("Event bus")

    def ready(self) -> None:
        # Importing it tells runtime.errors which of Kafka's errors are transient.
        from eventbus import errors  # noqa: F401
