"""The accounts at the SCIM servers. Only ids, versions and the servers' last answers are stored, no personal data."""

from typing import ClassVar, Final, Self

from django.db import models
from django.utils.translation import gettext_lazy as _

# Characters. RFC 7643 sets no limit for ids; a server with longer ones can't be provisioned.
SCIM_ID_MAX: Final = 255
SERVER_MAX: Final = 50
LAST_ANSWER_MAX: Final = 200


class ScimAccount(models.Model):
    """One account at one server.

    `owner_signup_id` identifies the account and is its `externalId` at the server. `signup_id` is the sign-up whose
    request created it. `scim_id` is empty until the server has the account, and after a removal. `version` is the one
    of auth's record that the server has; 0 if it has none. `blocked_by` is the owner of an account that had a userName
    or address of this account's last change.
    """

    server = models.CharField(_("server"), max_length=SERVER_MAX)
    owner_signup_id = models.UUIDField(_("account created by sign-up"))
    signup_id = models.UUIDField(_("added for sign-up"), null=True)
    scim_id = models.CharField(_("SCIM ID"), max_length=SCIM_ID_MAX, blank=True)
    version = models.PositiveBigIntegerField(_("version"), default=0)
    last_answer = models.CharField(_("last answer"), max_length=LAST_ANSWER_MAX, blank=True)
    answered_at = models.DateTimeField(_("answered"), null=True)
    blocked_by = models.UUIDField(null=True, editable=False)
    # Set in a tombstone, which is kept forever: no late message may restore a removed account.
    removed_at = models.DateTimeField(_("removed"), null=True)
    # Until then, one process works on this account.
    claimed_until = models.DateTimeField(null=True, editable=False)

    objects: ClassVar[models.Manager[Self]] = models.Manager()

    class Meta:
        verbose_name = _("SCIM account")
        verbose_name_plural = _("SCIM accounts")
        default_permissions = ("view",)
        constraints = [models.UniqueConstraint(fields=["server", "owner_signup_id"], name="scim_account_unique")]

    def __str__(self) -> str:
        return f"{self.server}: {self.owner_signup_id}"
