"""Changes of users in the admin: each is an event transaction that reaches every service (docs/adr/0057)."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

from django.contrib import admin, messages
from django.contrib.admin.models import LogEntry
from django.contrib.auth.forms import UserChangeForm
from django.contrib.contenttypes.models import ContentType
from django.db import IntegrityError, transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.formats import date_format
from django.utils.html import format_html
from django.utils.timezone import localtime
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from authsvc.lights import Kind
from authsvc.models import DATABASE, EventTransaction, NoSuchAccountError, User
from authsvc.signups.changes import OutdatedError, change_account
from runtime.admin_toolkit.long_action import progress_of, progress_page, work_on
from runtime.admin_toolkit.model_admin import ModelAdmin
from runtime.opened_forms import OpenedForm
from runtime.security_log import log_security_event_of

# Users per step of a long action.
PAGE: Final = 100
# Outcomes that a long action counts.
CHANGED: Final = "changed"
SKIPPED: Final = "skipped"
# Earlier changes that the error about an outdated form lists.
CHANGES_LISTED: Final = 5


class OpenedUserForm(OpenedForm, UserChangeForm):  # type: ignore[type-arg]  # has none at run time
    """Refuse a form that was opened before the newest change of the user, and say who made it."""

    compared = tuple(User.SYNCHRONISED)

    def newer_changes(self, stored: User, *, since: int) -> Iterator[str]:
        """Describe the newest changes of the user since this version: their authors, fields and times."""
        rows = EventTransaction.objects.filter(
            owner_signup_id=stored.owner_signup_id, kind=Kind.CHANGE, record_version__gt=since
        ).order_by("-record_version")[:CHANGES_LISTED]
        entries = LogEntry.objects.filter(
            content_type=ContentType.objects.get_for_model(EventTransaction),
            object_id__in=[str(row.pk) for row in rows],
        ).select_related("user")
        actors = {entry.object_id: str(entry.user) for entry in entries}
        for row in rows:
            yield _("%(time)s: %(actor)s changed %(fields)s.") % {
                "time": date_format(localtime(row.created_at), "DATETIME_FORMAT"),
                "actor": actors.get(str(row.pk)) or _("the account's owner or a command"),
                "fields": ", ".join(row.changed_names),
            }


class ChangesUsers(ModelAdmin):
    """Save synchronised fields through change_account(), and link to the lights of each change."""

    def changeform_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        try:
            return super().changeform_view(request, *args, **kwargs)
        except IntegrityError:
            # Another request took the user ID or address after this one had checked it. Check again.
            return super().changeform_view(request, *args, **kwargs)

    def save_model(self, request: HttpRequest, obj: User, form: Any, change: bool) -> None:
        if not change:
            super().save_model(request, obj, form, change)
        elif row := change_account(obj, expected_version=form.cleaned_data["opened"].version):
            vars(obj)["saved_change"] = row

    def log_change(self, request: HttpRequest, obj: Any, message: Any) -> LogEntry:
        """Log it at the transaction too, whose timeline says who made the change."""
        if row := vars(obj).get("saved_change"):
            super().log_change(request, row, message)
            log_security_event_of(request, "account_changed", subject=obj.user_id, detail=row.changed_fields)
        return super().log_change(request, obj, message)

    def response_change(self, request: HttpRequest, obj: Any) -> HttpResponse:
        response = super().response_change(request, obj)
        row = vars(obj).get("saved_change")
        if row and request.user.has_perm("authsvc.view_signup"):
            path = reverse("admin:authsvc_eventtransaction_change", args=[row.pk])
            words = _("Every service receives this change. {link}")
            link = format_html('<a href="{}">{}</a>', path, _("Watch the services answer"))
            self.message_user(request, format_html(words, link=link))
        return response

    @admin.action(description=gettext_lazy("Deactivate selected users"), permissions=["change"])
    def deactivate(self, request: HttpRequest, queryset: QuerySet[User]) -> HttpResponse | None:
        return self._set_active(request, queryset, is_active=False)

    @admin.action(description=gettext_lazy("Activate selected users"), permissions=["change"])
    def activate(self, request: HttpRequest, queryset: QuerySet[User]) -> HttpResponse | None:
        return self._set_active(request, queryset, is_active=True)

    def _set_active(self, request: HttpRequest, chosen: QuerySet[User], *, is_active: bool) -> HttpResponse | None:
        """Change as many users as WORKS_FOR allows, and return a page that goes on, or None at the end."""

        def change(keys: Sequence[Any]) -> dict[str, int]:
            users = User.objects.filter(pk__in=keys).order_by("pk")
            changed = sum(self._change_one(request, user, is_active=is_active) for user in users)
            return {CHANGED: changed, SKIPPED: len(keys) - changed}

        progress = work_on(progress_of(request, chosen), chosen, change, rows=PAGE)
        if not progress.is_ended:
            title = _("Activate selected users") if is_active else _("Deactivate selected users")
            return progress_page(self, request, progress, title)
        changed, skipped = progress.counts.get(CHANGED, 0), progress.counts.get(SKIPPED, 0)
        words = (
            ngettext("%(count)d user was activated.", "%(count)d users were activated.", changed)
            if is_active
            else ngettext("%(count)d user was deactivated.", "%(count)d users were deactivated.", changed)
        )
        words %= {"count": changed}
        if skipped:
            words += " " + ngettext(
                "%(count)d user was skipped: already in this state, your own account, or one you may not change.",
                "%(count)d users were skipped: already in this state, your own account, or ones you may not change.",
                skipped,
            ) % {"count": skipped}
        self.message_user(request, words, messages.SUCCESS if changed else messages.WARNING)
        return None

    @transaction.atomic(using=DATABASE)
    def _change_one(self, request: HttpRequest, user: User, *, is_active: bool) -> bool:
        """Activate or deactivate one user in a transaction. Return whether anything changed."""
        if user.is_active == is_active or user.pk == request.user.pk or not self.has_change_permission(request, user):
            return False
        user.is_active = is_active
        try:
            row = change_account(user)
        except OutdatedError:
            # Somebody changed the user since this page of users was read.
            stored = User.objects.filter(pk=user.pk).first()
            return stored is not None and self._change_one(request, stored, is_active=is_active)
        except NoSuchAccountError:
            return False
        if row is None:
            return False
        # In the same transaction: a removal that comes next then finds the log's entries, and erases their user IDs.
        vars(user)["saved_change"] = row
        self.log_change(request, user, [{"changed": {"fields": ["active"]}}])
        return True
