from django.apps import AppConfig
from django.utils.translation import pgettext_lazy

# The name beside the light. Pages capitalise and translate the service's name, which comes from a setting.
LIGHT_NAME = pgettext_lazy("service", "Chat")


class ChatServiceConfig(AppConfig):
    name = "chatsvc"
    verbose_name = pgettext_lazy("service", "Chat service")
