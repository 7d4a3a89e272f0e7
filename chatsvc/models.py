"""Chat's copy of the users, in chat's own database."""

from django.utils.translation import pgettext_lazy

from participant.models import ParticipantUser


class ChatUser(ParticipantUser):
    class Meta(ParticipantUser.Meta):
        verbose_name = pgettext_lazy("service", "chat user")
        verbose_name_plural = pgettext_lazy("service", "chat users")
