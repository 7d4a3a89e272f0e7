"""The model of a user that every participant stores."""

from collections.abc import Collection
from typing import Any, ClassVar, Self, TypeVar

from django.core import checks
from django.core.exceptions import ValidationError
from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from participant.limits import EMAIL_MAX, ROLE_MAX, USER_ID_KEY_MAX, USER_ID_MAX, USER_NAME_MAX
from runtime.equality import normalize_email, normalize_user_id, user_id_key

UserT = TypeVar("UserT", bound="ParticipantUser")


class LivingManager(models.Manager[UserT]):
    """The users without the tombstones of removed accounts."""

    def get_queryset(self) -> models.QuerySet[UserT]:
        return super().get_queryset().filter(removed_at=None)


class ParticipantUser(models.Model):
    """A participant's copy of a user. Validating and saving normalise it; bulk_create and update do not.

    `signup_id` is the sign-up whose request created the row, `owner_signup_id` the one that created auth's record. Both
    are null in a row that an administrator created: such a row is a duplicate for every sign-up. `version` is that of
    auth's record when the row was last brought up to date.

    A row with `removed_at` is the tombstone of a removed account. It is in this table so that a unique constraint
    keeps a late request, perhaps handled by another process at the same time, from restoring the account.
    """

    signup_id = models.UUIDField(_("added for sign-up"), null=True, editable=False)
    owner_signup_id = models.UUIDField(_("account created by sign-up"), null=True, editable=False)
    user_id = models.CharField(_("user ID"), max_length=USER_ID_MAX)
    user_id_key = models.CharField(_("user ID, folded"), max_length=USER_ID_KEY_MAX, editable=False)
    email = models.EmailField(_("email address"), max_length=EMAIL_MAX)
    user_name = models.CharField(_("name"), max_length=USER_NAME_MAX, blank=True)
    role = models.CharField(_("role"), max_length=ROLE_MAX, default="ROLE_USER")
    is_active = models.BooleanField(
        _("active"), default=True, help_text=_("Turn this off to keep the user out of this service.")
    )
    is_account_active = models.BooleanField(
        _("account active"),
        default=True,
        db_default=True,
        editable=False,
        help_text=_("Auth decides about this for all services. Change it in the user's account."),
    )
    version = models.PositiveIntegerField(_("version"), default=1, db_default=1, editable=False)
    created_at = models.DateTimeField(_("created"), default=timezone.now, editable=False)
    removed_at = models.DateTimeField(_("removed"), null=True, editable=False)

    objects: ClassVar[models.Manager[Self]] = LivingManager()
    # With the tombstones.
    every: ClassVar[models.Manager[Self]] = models.Manager()

    class Meta:
        abstract = True
        constraints = [
            models.UniqueConstraint(fields=["user_id_key"], name="%(class)s_user_id_key_unique"),
            models.UniqueConstraint(fields=["email"], name="%(class)s_email_unique"),
            models.UniqueConstraint(fields=["owner_signup_id"], name="%(class)s_owner_unique"),
        ]

    def __str__(self) -> str:
        return self.user_id

    def save(self, *args: Any, **kwargs: Any) -> None:
        self.normalize()
        super().save(*args, **kwargs)

    def normalize(self) -> None:
        """Bring userId and email to their normal forms, in which equality is the same in every service."""
        self.user_id = normalize_user_id(self.user_id)
        self.user_id_key = user_id_key(self.user_id)
        self.email = normalize_email(self.email)

    @classmethod
    def check(cls, **kwargs: Any) -> list[checks.CheckMessage]:
        """Refuse own fields without a default. The statements that insert rows don't know db_default or auto_now."""
        return [
            *super().check(**kwargs),
            *(
                checks.Error(
                    f"{field} needs a default or null=True, because new users are stored with auth's values only.",
                    obj=field,
                    id="participant.E001",
                )
                for field in own_fields(cls)
                if not (field.null or field.has_default())
            ),
        ]

    @property
    def may_enter(self) -> bool:
        """Whether the user may use this service: both auth and this service's administrators decide about it."""
        return self.is_account_active and self.is_active

    def clean_fields(self, exclude: Collection[str] | None = None) -> None:
        """Normalise first, because that can lengthen a text and the limits apply to what is saved."""
        self.normalize()
        super().clean_fields(exclude=exclude)

    def clean(self) -> None:
        """Report a taken userId at its field. The unique column, user_id_key, is not part of any form."""
        super().clean()
        same = type(self).objects.filter(user_id_key=self.user_id_key).exclude(pk=self.pk).first()
        if same is not None:
            raise ValidationError({"user_id": _("This user ID is taken: “%(taken)s” is the same.") % {"taken": same}})


def own_fields(model: type[ParticipantUser]) -> "list[models.Field[Any, Any]]":
    """Return the columns that a service adds to its model."""
    shared = {field.name for field in ParticipantUser._meta.local_fields}
    return [field for field in model._meta.concrete_fields if field.name not in shared and not field.primary_key]
