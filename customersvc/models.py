"""The customer service's own copy of the users, in its own database."""

from django.utils.translation import gettext_lazy as _

from participant.models import ParticipantUser


class Customer(ParticipantUser):
    class Meta(ParticipantUser.Meta):
        verbose_name = _("customer")
        verbose_name_plural = _("customers")
