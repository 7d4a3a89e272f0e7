from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _
from django.utils.translation import gettext_noop

# The name beside the light. Pages capitalise and translate the service's name, which comes from a setting.
LIGHT_NAME = gettext_noop("Chat")


class ChatServiceConfig(AppConfig):
    name = "chatsvc"
    verbose_name = _("Chat service")
