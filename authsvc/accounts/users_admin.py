"""Admin pages of users and groups. Only superusers grant privileges and edit staff (docs/adr/0041)."""

from collections.abc import Iterable
from typing import Any, ClassVar, Final, cast

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.options import IS_POPUP_VAR
from django.contrib.auth.admin import GroupAdmin as DjangoGroupAdmin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.forms import (
    AdminPasswordChangeForm,
    BaseUserCreationForm,
    ReadOnlyPasswordHashField,
    ReadOnlyPasswordHashWidget,
)
from django.contrib.auth.hashers import is_password_usable
from django.contrib.auth.models import Group, Permission
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from authsvc.accounts.two_factor.admin import ResetsTwoFactor
from authsvc.accounts.user_changes_admin import ChangesUsers, OpenedUserForm
from authsvc.lights import Kind
from authsvc.models import EventTransaction, NoSuchAccountError, Role, User
from authsvc.signups.changes import remove_account
from runtime.admin_toolkit.action_admin import ActionAdmin
from runtime.admin_toolkit.restricted_admin import RestrictedAdmin
from runtime.admin_toolkit.user_fields_admin import ShowsUserFields, named_by_account
from runtime.database.search import search
from runtime.equality import normalize_email, user_id_key
from runtime.security_log import log_security_event_of

# Names of the permissions that Django creates for each model, by the prefix of the codename.
_CAN: Final = {
    "add": _("Can add %s"),
    "change": _("Can change %s"),
    "delete": _("Can delete %s"),
    "view": _("Can view %s"),
}


class PasswordWidget(ReadOnlyPasswordHashWidget):
    """Show only whether a password is set. Django's widget shows the beginning of the salt and the hash."""

    def get_context(self, name: str, value: Any, attrs: Any) -> dict[str, Any]:
        context = super().get_context(name, None, attrs)
        if value and is_password_usable(value):
            context |= {"summary": [{"label": gettext("A password is set.")}], "button_label": _("Reset password")}
        return context


class UserForm(OpenedUserForm):
    password = ReadOnlyPasswordHashField(label=_("Password"), widget=PasswordWidget)


class UserCreationForm(BaseUserCreationForm):
    class Meta:
        model = User
        fields = ("user_id", "email", "user_name", "role")
        field_classes: ClassVar[dict[str, type[forms.Field]]] = {}


def permission_in_words(permission: Permission) -> str:
    """Return the permission's name in the reader's language: Django stores the name from when it was created."""
    act, _under, _model = permission.codename.partition("_")
    is_djangos = permission.name.startswith("Can ") and act in _CAN
    name = _CAN[act] % permission.content_type.name if is_djangos else gettext(permission.name)
    return f"{permission.content_type.app_labeled_name} | {name}"


class ChoosesPermissions(RestrictedAdmin):
    def formfield_for_manytomany(self, db_field: Any, request: Any = None, **kwargs: Any) -> Any:
        field: Any = super().formfield_for_manytomany(db_field, request, **kwargs)
        if db_field.related_model is Permission:
            field.queryset = Permission.objects.select_related("content_type")
            field.label_from_instance = permission_in_words
        return field


admin.site.unregister(Group)


@admin.register(Group)
class GroupAdmin(ActionAdmin, ChoosesPermissions, DjangoGroupAdmin):
    """Changing a group grants privileges to its members, so only superusers may do it."""

    privileges = ("permissions",)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return request.user.is_superuser

    def has_change_permission(self, request: HttpRequest, obj: Group | None = None) -> bool:
        return request.user.is_superuser

    def has_delete_permission(self, request: HttpRequest, obj: Group | None = None) -> bool:
        return request.user.is_superuser


@admin.register(User)
class UserAdmin(ActionAdmin, ChangesUsers, ResetsTwoFactor, ChoosesPermissions, ShowsUserFields, DjangoUserAdmin):
    list_display = ("user_id", "shown_email", "user_name", "role", "is_active", "is_staff", "date_joined")
    list_filter = ("role", "is_active", "is_staff", "date_joined")
    search_fields = ("user_id_key", "email", "user_name")
    search_help_text = _("The beginning of a user ID or email address, or part of a name.")
    ordering = ("-id",)
    readonly_fields = ("owner_signup_id", "date_joined", "last_login", "two_factor", "closes_at")
    form = UserForm
    add_form = UserCreationForm
    add_fieldsets = ((None, {"fields": ("user_id", "email", "user_name", "role", "password1", "password2")}),)
    fieldsets = (
        (None, {"fields": ("user_id", "email", "user_name", "role", "password", "opened")}),
        (_("Permissions"), {"fields": ("is_active", "is_staff", "is_superuser", "groups", "user_permissions")}),
        (_("Origin"), {"fields": readonly_fields}),
    )
    # The password's reset button, and the values that the form was opened with.
    form_only = ("password", "opened")
    filter_horizontal = ("groups", "user_permissions")
    privileges = ("is_staff", "is_superuser", "groups", "user_permissions")
    delete_selected_confirmation_template = "authsvc/remove_selected_confirmation.html"
    actions = ("activate", "deactivate", "reset_two_factor")

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[User], search_term: str
    ) -> tuple[QuerySet[User], bool]:
        if not (term := search_term.strip()):
            return queryset, False
        # The columns hold user IDs and addresses in the form in which they are compared.
        known = Q(user_id_key__startswith=user_id_key(term)) | Q(email__startswith=term.lower())
        return search(queryset, known | Q(email=normalize_email(term)), term, column="user_name"), False

    def response_add(self, request: HttpRequest, obj: User, post_url_continue: str | None = None) -> HttpResponse:
        """Lead from "Save" to the lights of the new user, if the administrator may see them."""
        asks_for_more = request.POST.keys() & {"_addanother", "_continue", IS_POPUP_VAR}
        if asks_for_more or not request.user.has_perm("authsvc.view_signup"):
            return super().response_add(request, obj, post_url_continue)
        said = _("The user “%(user)s” was added. The lights show which services have the account.")
        messages.success(request, said % {"user": obj.user_id})
        return HttpResponseRedirect(reverse("admin:authsvc_eventtransaction_change", args=[obj.owner_signup_id]))

    def construct_change_message(self, request: HttpRequest, form: Any, formsets: Any, add: bool = False) -> Any:
        """Log a new password: on the password page, Django calls no other method with the request after saving."""
        if isinstance(form, AdminPasswordChangeForm):
            detail = None if form.cleaned_data["set_usable_password"] else "login by password disabled"
            log_security_event_of(request, "password_changed", subject=form.user.user_id, detail=detail)
        return super().construct_change_message(request, form, formsets, add)

    def has_change_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        return super().has_change_permission(request, obj) and may_edit(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        is_own = obj is not None and obj.pk == request.user.pk
        return super().has_delete_permission(request, obj) and may_edit(request, obj) and not is_own

    def deletable(self, request: HttpRequest, chosen: QuerySet[User]) -> QuerySet[User]:
        return chosen.exclude(pk=cast(int, request.user.pk))

    def left_out(self, request: HttpRequest, chosen: QuerySet[User]) -> str:
        if not chosen.filter(pk=cast(int, request.user.pk)).exists():
            return ""
        return gettext("Your own account is never removed here: ask another administrator.")

    def deletion_refusal(self, request: HttpRequest, rows: QuerySet[User]) -> str:
        if request.user.is_superuser:
            return ""
        forbidden = Q(is_staff=True) | Q(is_superuser=True)
        if not holds_add_admin(request):
            forbidden |= Q(role=Role.ADMIN)
        if not rows.filter(forbidden).exists():
            return ""
        return gettext("You do not have permission to remove staff or administrators.")

    def log_deletions(self, request: HttpRequest, queryset: Iterable[User]) -> Any:
        # Somebody else may remove an account between the reading of `queryset` and the writing of its entry.
        return super().log_deletions(request, cast(QuerySet[User], named_by_account(queryset)))

    def delete_model(self, request: HttpRequest, obj: User) -> None:
        where = removals_path()
        if row := self._remove(request, obj):
            where = reverse("admin:authsvc_eventtransaction_change", args=[row.id])
        self.message_user(request, link_to_lights(where), messages.INFO)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[User]) -> None:
        for user in queryset:
            self._remove(request, user)

    def after_deletion(self, request: HttpRequest) -> str:
        return link_to_lights(removals_path())

    def _remove(self, request: HttpRequest, user: User) -> EventTransaction | None:
        """Remove the account in every service, unless it has been removed already."""
        try:
            row = remove_account(user)
        except NoSuchAccountError:
            return None
        log_security_event_of(request, "account_removed", detail=str(user.owner_signup_id))
        return row

    def formfield_for_choice_field(self, db_field: Any, request: Any, **kwargs: Any) -> Any:
        if db_field.name == "role" and not holds_add_admin(request):
            kwargs["choices"] = [(role.value, role.label) for role in Role if role is not Role.ADMIN]
        return super().formfield_for_choice_field(db_field, request, **kwargs)

    def forbidden_privileges(self, request: HttpRequest) -> list[str]:
        forbidden = super().forbidden_privileges(request)
        if request.POST.get("role") == Role.ADMIN and not holds_add_admin(request):
            forbidden.append("role")
        return forbidden

    def grants_of(self, form: Any, name: str) -> Iterable[str]:
        if name == "role" and form.cleaned_data[name] == Role.ADMIN:
            return [f"role: {Role.ADMIN}"]
        return super().grants_of(form, name)


def removals_path() -> str:
    return reverse("admin:authsvc_eventtransaction_changelist") + f"?kind__exact={Kind.REMOVAL}"


def link_to_lights(where: str) -> SafeString:
    return format_html('<a href="{}">{}</a>', where, _("The lights show which services have deleted their copies."))


def holds_add_admin(request: HttpRequest) -> bool:
    return request.user.has_perm("authsvc.add_admin")


def may_edit(request: HttpRequest, user: User | None) -> bool:
    """Whether a member of staff who may change or delete users may do so to this one.

    Setting the password or the address of an account is enough to act as that account.
    """
    if user is None or request.user.is_superuser:
        return True
    if user.is_staff or user.is_superuser:
        return False
    return user.role != Role.ADMIN or holds_add_admin(request)
