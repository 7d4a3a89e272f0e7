from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class ChatServiceConfig(AppConfig):
    name = "chatsvc"
    verbose_name = _("Chat service")
