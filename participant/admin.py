"""The admin for a participant's users, which is the same for every participant."""

from collections.abc import Iterable
from contextlib import suppress
from typing import Any, cast
from uuid import UUID

from django.contrib import admin, messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.admin.utils import flatten_fieldsets
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from participant.models import ParticipantUser, own_fields
from runtime.admin_toolkit.action_admin import ActionAdmin
from runtime.admin_toolkit.user_fields_admin import ShowsUserFields, named_by_account
from runtime.database.search import search
from runtime.equality import normalize_email, user_id_key
from runtime.opened_forms import OpenedForm


class ParticipantUserForm(OpenedForm):
    """An outdated form would undo what auth has changed since, and no later event would correct the row."""

    compared = ("user_id", "email", "user_name", "role", "is_active")


class ParticipantUserAdmin(ActionAdmin, ShowsUserFields):
    """The admin of a participant's users. Register it, or a subclass, with each concrete model.

    Tombstones of removed accounts have no page, because the model's default manager hides them."""

    list_display = ("user_id", "shown_email", "user_name", "role", "is_account_active", "is_active", "created_at")
    list_filter = ("is_active", "is_account_active", "role", "created_at")
    search_fields = ("user_id_key", "email", "user_name", "signup_id", "owner_signup_id")
    search_help_text = _("Part of a user ID, an email address or a name, or a complete sign-up ID.")
    ordering = ("-pk",)
    # The full count beside a search would read the whole table for a number that nobody needs.
    show_full_result_count = False
    readonly_fields = ("signup_id", "owner_signup_id", "version", "is_account_active", "created_at")
    fieldsets = (
        (None, {"fields": ("user_id", "email", "user_name", "role")}),
        (
            _("Access"),
            {
                "fields": ("is_account_active", "is_active"),
                "description": _(
                    "A user may use this service only if both are set. To keep a user out of this service, deactivate "
                    "the user here. Deleting the row is not enough: the next replay of the sign-up adds it again."
                ),
            },
        ),
        (
            _("Created by"),
            {
                "fields": ("signup_id", "owner_signup_id", "version", "created_at"),
                "description": _(
                    "A user added here by an administrator has no sign-up, so every sign-up for the same user is a "
                    "duplicate."
                ),
            },
        ),
    )
    form = ParticipantUserForm
    actions = ("deactivate", "activate")
    privileges = ("role",)
    delete_confirmation_template = "participant/delete_confirmation.html"
    delete_selected_confirmation_template = "participant/delete_selected_confirmation.html"

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """Show the fields that a service adds to its model, unless a subclass has placed them."""
        fieldsets = super().get_fieldsets(request, obj)
        if obj is not None and self.has_change_permission(request, obj):
            title, options = fieldsets[0]
            fieldsets = ((title, {**options, "fields": (*options["fields"], "opened")}), *fieldsets[1:])
        placed = set(flatten_fieldsets(fieldsets))
        own = [field.name for field in own_fields(self.model) if field.editable and field.name not in placed]
        section = (self.opts.app_config.verbose_name, {"fields": own})
        return (*fieldsets[:1], section, *fieldsets[1:]) if own else fieldsets

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[ParticipantUser], search_term: str
    ) -> tuple[QuerySet[ParticipantUser], bool]:
        if not (term := search_term.strip()):
            return queryset, False
        # The columns store user IDs and addresses in their normalised forms.
        known = Q(user_id_key__contains=user_id_key(term)) | Q(email__contains=term.lower())
        known |= Q(email=normalize_email(term))
        with suppress(ValueError):
            known |= Q(signup_id=UUID(term)) | Q(owner_signup_id=UUID(term))
        return search(queryset, known, term, column="user_name"), False

    def log_change(self, request: HttpRequest, obj: ParticipantUser, message: Any) -> LogEntry:
        [named] = named_by_account([obj])
        return super().log_change(request, named, message)

    def log_deletions(self, request: HttpRequest, queryset: Iterable[ParticipantUser]) -> Any:
        return super().log_deletions(request, cast(QuerySet[ParticipantUser], named_by_account(queryset)))

    @admin.action(description=_("Deactivate selected users"), permissions=["change"])
    def deactivate(self, request: HttpRequest, queryset: QuerySet[ParticipantUser]) -> None:
        self._set_active(request, queryset, is_active=False)

    @admin.action(description=_("Activate selected users"), permissions=["change"])
    def activate(self, request: HttpRequest, queryset: QuerySet[ParticipantUser]) -> None:
        self._set_active(request, queryset, is_active=True)

    def _set_active(self, request: HttpRequest, queryset: QuerySet[ParticipantUser], *, is_active: bool) -> None:
        chosen = list(queryset)
        changed = [user for user in chosen if user.is_active != is_active]
        self.model.objects.filter(pk__in=[user.pk for user in changed]).update(is_active=is_active)
        message = [{"changed": {"fields": ["active"]}}]
        LogEntry.objects.log_actions(cast(int, request.user.pk), named_by_account(changed), CHANGE, message)
        same = len(chosen) - len(changed)
        if is_active:
            text = ngettext("%(count)d user was activated.", "%(count)d users were activated.", len(changed))
            unchanged = ngettext("%(count)d user was already active.", "%(count)d users were already active.", same)
        else:
            text = ngettext("%(count)d user was deactivated.", "%(count)d users were deactivated.", len(changed))
            unchanged = ngettext("%(count)d user was already inactive.", "%(count)d users were already inactive.", same)
        text %= {"count": len(changed)}
        if same:
            text += " " + unchanged % {"count": same}
        self.message_user(request, text, messages.SUCCESS if changed else messages.WARNING)
