"""Auth's tables: users, and event transactions (sign-ups, changes and removals) with their lights."""

from collections.abc import Collection
from datetime import datetime
from typing import Any, ClassVar, Final
from uuid import UUID

import msgspec
from django.conf import settings
from django.contrib.auth.models import AbstractBaseUser, BaseUserManager, PermissionsMixin
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.db import DatabaseError, models, router, transaction
from django.dispatch import Signal
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from uuid_utils.compat import uuid7

from authsvc import identity
from authsvc.changed_columns import GuardedQuerySet, KnowsChanges
from authsvc.lights import FAILURES_MAX, Kind, TransactionState, lights_as_document, lights_from_document
from runtime import equality
from runtime.security_log import log_security_event, operator

# The alias of the database that holds these tables.
DATABASE: Final = "default"
# Sent with `user` inside the transaction that changes an existing user's password.
password_replaced = Signal()
# Sent with `user` and the `former` address inside the transaction that changes a user's email address.
address_replaced = Signal()


class NoSuchAccountError(Exception):
    """The account has been removed, perhaps a moment ago."""


def new_signup_id() -> UUID:
    """Return a UUIDv7, which is ordered by time, so that the primary key's index grows at one end."""
    return uuid7()


class Role(models.TextChoices):
    USER = "ROLE_USER", _("User")
    ADMIN = "ROLE_ADMIN", _("Administrator")


class UserManager(BaseUserManager["User"]):
    def get_queryset(self) -> models.QuerySet["User"]:
        return GuardedQuerySet(self.model, using=self._db)

    def get_by_natural_key(self, username: str | None) -> "User":
        return self.get(user_id_key=equality.user_id_key(username or ""))

    async def aget_by_natural_key(self, username: str | None) -> "User":
        return await self.aget(user_id_key=equality.user_id_key(username or ""))

    def create_user(self, user_id: str, email: str, password: str | None = None, **fields: Any) -> "User":
        fields.setdefault("user_name", user_id)
        user = self.model(user_id=user_id, email=email, **fields)
        if password is not None:
            validate_password(password, user)
        user.set_password(password)
        user.full_clean(exclude=["password"])
        user.save(using=self._db)
        return user

    def create_superuser(self, user_id: str, email: str, password: str | None = None, **fields: Any) -> "User":
        """Called by Django's `createsuperuser` command."""
        user = self.create_user(user_id, email, password, is_staff=True, is_superuser=True, **fields)
        log_security_event("privilege_granted", actor=operator(), subject=user.user_id, detail="is_staff, is_superuser")
        return user


class User(KnowsChanges, AbstractBaseUser, PermissionsMixin):
    """Auth's record of a user. `owner_signup_id` is the ID of the sign-up that created it; a user created in another
    way has a unique ID there that no sign-up can ever use."""

    user_id = models.CharField(_("user ID"), max_length=identity.USER_ID_MAX, validators=[identity.validate_user_id])
    # Case folding can lengthen a text: ß becomes ss.
    user_id_key = models.CharField(_("user ID, folded"), max_length=identity.USER_ID_KEY_MAX, editable=False)
    email = models.CharField(_("email address"), max_length=identity.EMAIL_MAX, validators=[identity.validate_address])
    user_name = models.CharField(_("name"), max_length=identity.USER_NAME_MAX, validators=[identity.validate_user_name])
    role = models.CharField(_("role"), max_length=16, choices=Role.choices, default=Role.USER)
    owner_signup_id = models.UUIDField(_("created by sign-up"), default=new_signup_id, editable=False)
    # Increases in the transaction that changes a field in SYNCHRONISED (docs/adr/0057).
    version = models.PositiveIntegerField(_("version"), default=1, db_default=1, editable=False)
    is_active = models.BooleanField(
        _("active"), default=True, help_text=_("Turn this off instead of deleting the account.")
    )
    is_staff = models.BooleanField(_("staff"), default=False, help_text=_("May log in to the administration."))
    # The time at which the owner's request to close the account takes effect.
    closes_at = models.DateTimeField(_("closes"), null=True, blank=True, editable=False)
    date_joined = models.DateTimeField(_("joined"), default=timezone.now, editable=False)

    objects: ClassVar[UserManager] = UserManager()
    # The fields that every service has a copy of, with their names in the contract.
    SYNCHRONISED: ClassVar[dict[str, str]] = {
        "user_id": "userId", "email": "email", "user_name": "userName", "role": "role", "is_active": "active",
    }  # fmt: skip
    GUARDED: ClassVar[frozenset[str]] = frozenset({*SYNCHRONISED, "user_id_key", "version"})
    # The second factor that the request's session has proved (authsvc.accounts.two_factor.rules.admitted).
    otp_device: Any = None
    _has_lost_password = False

    USERNAME_FIELD = "user_id"
    EMAIL_FIELD = "email"
    REQUIRED_FIELDS: ClassVar[list[str]] = ["email"]

    class Meta:
        verbose_name = _("user")
        verbose_name_plural = _("users")
        constraints = [
            models.UniqueConstraint(fields=["user_id_key"], name="user_id_key_unique"),
            # Implied by the constraint above, but Django requires it of USERNAME_FIELD (auth.E003).
            models.UniqueConstraint(
                fields=["user_id"], name="user_id_unique", violation_error_message=_("This user ID is taken.")
            ),
            models.UniqueConstraint(
                fields=["email"],
                name="user_email_unique",
                violation_error_message=_("This email address is taken."),
            ),
            models.UniqueConstraint(fields=["owner_signup_id"], name="user_owner_unique"),
        ]
        indexes = [
            models.Index(fields=["closes_at"], name="user_closing", condition=models.Q(closes_at__isnull=False)),
        ]
        permissions = [("add_admin", _("May sign up administrators"))]

    def __str__(self) -> str:
        return self.user_id

    def get_full_name(self) -> str:
        return self.user_name

    def as_record(self) -> dict[str, Any]:
        """Return the fields that events carry, by their names there in snake case."""
        return {
            "owner_signup_id": self.owner_signup_id,
            "user_id": self.user_id,
            "email": self.email,
            "user_name": self.user_name,
            "role": self.role,
            "version": self.version,
            "active": self.is_active,
        }

    def normalize(self) -> None:
        """Normalise the fields, so that equal values are equal strings everywhere."""
        self.user_id = equality.normalize_user_id(self.user_id)
        self.user_id_key = equality.user_id_key(self.user_id)
        self.email = equality.normalize_email(self.email)

    def clean_fields(self, exclude: Collection[str] | None = None) -> None:
        """Normalise before validating, because the limits apply to the saved values. Don't validate unchanged values:
        the rules may have become stricter since, and such a user couldn't even be deactivated."""
        self.normalize()
        row = type(self).objects.filter(pk=self.pk).first()
        unchanged = {
            name for name in ("user_id", "user_name", "email") if row and getattr(row, name) == getattr(self, name)
        }
        super().clean_fields(exclude={*(exclude or ()), *unchanged})

    def clean(self) -> None:
        """Report a taken user ID at the user_id field: the unique field, user_id_key, is in no form."""
        same = type(self).objects.filter(user_id_key=self.user_id_key).exclude(pk=self.pk)
        if same.exists():
            raise ValidationError({"user_id": _("This user ID is taken.")})

    def set_unusable_password(self) -> None:
        super().set_unusable_password()
        self._has_lost_password = True

    def save(self, *args: Any, is_change: bool = False, **kwargs: Any) -> None:
        """Save the columns that changed. If the password changed or became unusable, also erase the old hash from
        sign-ups (docs/adr/0040). Only change_account() saves with `is_change`; raise BypassError for all others that
        changed a synchronised field of an existing user, and NoSuchAccountError if the user was removed."""
        kwargs["update_fields"] = columns = self.columns_to_save(kwargs.get("update_fields"), is_change=is_change)
        if self._state.adding:
            self.normalize()
        # Django sets `_password` between set_password() and save(), except when it only upgrades a hash's parameters.
        is_new_password = getattr(self, "_password", None) is not None and not self._state.adding
        with transaction.atomic(using=kwargs.get("using") or router.db_for_write(type(self), instance=self)):
            try:
                super().save(*args, **kwargs)
            except DatabaseError as error:
                # Django's own error, that no row has this primary key. The driver's error causes every other one.
                if error.__cause__ is None:
                    raise NoSuchAccountError from error
                raise
            self.note_saved(columns)
            if is_new_password or self._has_lost_password:
                erase_input(SignUp.objects.filter(owner_signup_id=self.owner_signup_id, password__gt=""))
            if is_new_password:
                password_replaced.send(type(self), user=self)
        self._has_lost_password = False


class EventTransaction(models.Model):
    """A sign-up, or a change or removal of an account: its lights, and its outbox, the time when its event is due again
    (docs/adr/0002, docs/adr/0057). `lights` is one JSON document, read and written whole (docs/adr/0005).

    The fields submitted at a sign-up and the password hash are kept to distinguish a repeated `POST /user` from a
    different one with the same key. Once the sign-up's ticket has expired, it can't be repeated any more: the hash
    becomes "", and so do the name and address of a sign-up that auth refused (docs/adr/0040). A change shows the values
    that it brought about, and its event carries auth's current record. A removal keeps the user ID until every service
    has answered. Once an account has been removed, none of its transactions has personal data.
    """

    id = models.UUIDField(_("ID"), primary_key=True, default=new_signup_id, editable=False)
    kind = models.CharField(
        _("kind"),
        max_length=16,
        choices=[
            (Kind.SIGNUP.value, _("Sign-up")),
            (Kind.CHANGE.value, _("Change")),
            (Kind.REMOVAL.value, _("Removal")),
        ],
        default=Kind.SIGNUP.value,
        db_default=Kind.SIGNUP.value,
    )
    # The version of auth's record that this transaction brought about.
    record_version = models.PositiveIntegerField(_("version of the account"), default=1, db_default=1)
    # The names in the contract of the fields that a change changed, separated by spaces.
    changed_fields = models.CharField(_("changed"), max_length=60, default="", db_default="", blank=True)
    user_id = models.CharField(_("user ID"), max_length=identity.USER_ID_MAX)
    user_id_key = models.CharField(_("user ID, folded"), max_length=identity.USER_ID_KEY_MAX)
    email = models.CharField(_("email address"), max_length=identity.EMAIL_MAX)
    user_name = models.CharField(_("name"), max_length=identity.USER_NAME_MAX)
    role = models.CharField(_("role"), max_length=16, choices=Role.choices, default=Role.USER)
    password = models.CharField(_("password hash"), max_length=128)
    owner_signup_id = models.UUIDField(_("owner's sign-up ID"))

    lights = models.JSONField(_("lights"))
    version = models.PositiveIntegerField(_("version"))
    pending_count = models.PositiveSmallIntegerField(_("lights pending"))
    failed_count = models.PositiveSmallIntegerField(_("lights red"))
    # A copy of TransactionState.failures: failure groups are counted in its index without reading the JSON documents.
    failures = models.CharField(_("failures"), max_length=FAILURES_MAX, default="", db_default="", blank=True)

    created_at = models.DateTimeField(_("started"), default=timezone.now, db_index=True)
    completed_at = models.DateTimeField(_("complete"), null=True, blank=True)
    attempts = models.PositiveIntegerField(_("attempts"), default=1)
    next_due_at = models.DateTimeField(_("next attempt"), null=True, blank=True)
    stalled_at = models.DateTimeField(_("stalled"), null=True, blank=True)

    class Meta:
        db_table = "authsvc_signup"
        verbose_name = _("sign-up, change or removal")
        verbose_name_plural = _("sign-ups, changes and removals")
        # Administrators got these before there were changes and removals.
        default_permissions = ()
        permissions = [
            ("view_signup", _("Can view sign-ups, changes and removals")),
            ("replay_signup", _("May replay sign-ups")),
        ]
        indexes = [
            models.Index(fields=["user_id_key"], name="signup_user_id_key"),
            models.Index(fields=["next_due_at"], name="signup_due", condition=models.Q(next_due_at__isnull=False)),
            models.Index(fields=["id"], name="signup_pending", condition=models.Q(pending_count__gt=0)),
            models.Index(fields=["id"], name="signup_red", condition=models.Q(failed_count__gt=0)),
            models.Index(fields=["failures", "id"], name="signup_failures", condition=models.Q(failed_count__gt=0)),
            models.Index(fields=["id"], name="signup_stalled", condition=models.Q(stalled_at__isnull=False)),
            # Sign-ups that still have a hash: retention.erase_expired() looks for old ones, User.save() for a user's.
            models.Index(
                fields=["created_at", "owner_signup_id"],
                name="signup_keeps_hash",
                condition=models.Q(password__gt=""),
            ),
            # An account's transactions, which its removal erases.
            models.Index(fields=["owner_signup_id"], name="signup_owner"),
            # Of far more sign-ups, the admin lists the changes or the removals.
            models.Index(
                fields=["kind", "created_at"],
                name="signup_kind",
                condition=models.Q(kind__in=[Kind.CHANGE.value, Kind.REMOVAL.value]),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.user_id} ({self.id})" if self.user_id else str(self.id)

    @property
    def is_owner(self) -> bool:
        """Whether this is the sign-up that created the user."""
        return self.owner_signup_id == self.id

    @property
    def changed_names(self) -> list[str]:
        """The names of the fields that a change changed, in the reader's language."""
        fields = {wire: User._meta.get_field(name) for name, wire in User.SYNCHRONISED.items()}
        return [str(getattr(fields[wire], "verbose_name", wire)) for wire in self.changed_fields.split()]

    @property
    def state(self) -> TransactionState:
        return TransactionState(
            transaction_id=self.id,
            kind=Kind(self.kind),
            started_at=self.created_at,
            version=self.version,
            lights=lights_from_document(self.lights),
            is_stalled=self.stalled_at is not None,
        )

    def take(self, state: TransactionState, *, at: datetime) -> None:
        """Copy a state into the columns; the caller saves. A complete sign-up is no longer due."""
        self.lights = lights_as_document(state.lights)
        self.version = state.version
        self.pending_count = len(state.pending)
        self.failed_count = len(state.failed)
        self.failures = state.failures
        self.completed_at = at if state.is_complete else None
        if state.is_complete:
            self.next_due_at = None
            self.stalled_at = None

    # The columns that take() sets, for bulk updates.
    STATE_FIELDS: ClassVar[list[str]] = [
        "lights", "version", "pending_count", "failed_count", "failures", "completed_at", "next_due_at",
        "stalled_at",
    ]  # fmt: skip


class SignUpManager(models.Manager["SignUp"]):
    def get_queryset(self) -> models.QuerySet["SignUp"]:
        return super().get_queryset().filter(kind=Kind.SIGNUP)


class SignUp(EventTransaction):
    """The event transactions that are sign-ups."""

    objects: ClassVar[SignUpManager] = SignUpManager()

    class Meta:
        proxy = True
        default_permissions = ()
        verbose_name = _("sign-up")
        verbose_name_plural = _("sign-ups")

    @property
    def may_be_repeated(self) -> bool:
        """Whether a repeated `POST /user` may still join this sign-up: as long as its first ticket is valid, and the
        password hash is not erased."""
        age = (timezone.now() - self.created_at).total_seconds()
        return bool(self.password) and age <= settings.TICKET_MAX_AGE


def erase_input(signups: models.QuerySet[SignUp]) -> None:
    """Erase what only a repeated `POST /user` needs: the password hash and, of a sign-up that auth refused, also the
    name and address, because no account holds them (docs/adr/0040)."""
    of_owners = {
        name: models.Case(models.When(id=models.F("owner_signup_id"), then=models.F(name)), default=models.Value(""))
        for name in ("user_name", "email")
    }
    signups.update(password="", **of_owners)


class RemovedAccount(models.Model):
    """The tombstone of an account: it keeps a late message, a replay or a restored backup from bringing the account
    back. It has no personal data and is kept forever."""

    owner_signup_id = models.UUIDField(_("created by sign-up"), primary_key=True, editable=False)
    version = models.PositiveIntegerField(_("version"))
    removed_at = models.DateTimeField(_("removed"), default=timezone.now)

    class Meta:
        default_permissions = ()
        verbose_name = _("removed account")
        verbose_name_plural = _("removed accounts")

    def __str__(self) -> str:
        return str(self.owner_signup_id)


def known_owners(owners: Collection[UUID]) -> set[UUID]:
    """Return those of the owners that auth has a record of."""
    return set(User.objects.filter(owner_signup_id__in=owners).values_list("owner_signup_id", flat=True))


def removed_owners(owners: Collection[UUID]) -> set[UUID]:
    """Return those of the owners whose account auth has removed."""
    return set(RemovedAccount.objects.filter(owner_signup_id__in=owners).values_list("owner_signup_id", flat=True))


class UnconfirmedSignUp(models.Model):
    """A sign-up that awaits confirmation of its email address (docs/adr/0042). It reserves no userId or address and
    publishes nothing. It is deleted when it is confirmed or after SIGNUP_CONFIRM_HOURS.

    `id` will be the ID of the confirmed sign-up. The password hash also serves to distinguish a repeated request from
    a different one with the same key.
    """

    id = models.UUIDField(_("sign-up ID"), primary_key=True, editable=False)
    user_id = models.CharField(_("user ID"), max_length=identity.USER_ID_MAX)
    user_id_key = models.CharField(_("user ID, folded"), max_length=identity.USER_ID_KEY_MAX, db_index=True)
    email = models.CharField(_("email address"), max_length=identity.EMAIL_MAX)
    user_name = models.CharField(_("name"), max_length=identity.USER_NAME_MAX)
    role = models.CharField(_("role"), max_length=16, choices=Role.choices, default=Role.USER)
    password = models.CharField(_("password hash"), max_length=128)
    created_at = models.DateTimeField(_("started"), default=timezone.now, db_index=True)

    class Meta:
        default_permissions = ("view",)
        verbose_name = _("unconfirmed sign-up")
        verbose_name_plural = _("unconfirmed sign-ups")

    def __str__(self) -> str:
        return f"{self.user_id} ({self.id})"

    @property
    def state(self) -> TransactionState:
        pending = TransactionState.all_pending(self.id, started_at=self.created_at, services=settings.SIGNUP_SERVICES)
        return msgspec.structs.replace(pending, is_unconfirmed=True)


class TrafficMinute(models.Model):
    """The traffic counts of one minute, with the fields of authsvc.signups.traffic_counts; kept for a week
    (docs/adr/0028)."""

    minute = models.DateTimeField(_("minute"), primary_key=True)
    counts = models.JSONField(_("figures"))

    class Meta:
        default_permissions = ("view",)
        verbose_name = _("traffic")
        verbose_name_plural = _("traffic")

    def __str__(self) -> str:
        return f"{self.minute:%Y-%m-%d %H:%M}"
