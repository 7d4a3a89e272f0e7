"""Chat's copy of the users, in chat's own database."""

from django.utils.translation import gettext_lazy as _

from participant.models import ParticipantUser


class ChatUser(ParticipantUser):
    class Meta(ParticipantUser.Meta):
        verbose_name = _("chat user")
        verbose_name_plural = _("chat users")
