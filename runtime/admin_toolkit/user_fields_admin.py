"""Users' fields in the admin. An email address is shown with the domain in Unicode, stored with the domain in ASCII."""

from collections.abc import Iterable, Sequence
from copy import copy
from typing import Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from runtime.admin_toolkit.model_admin import ModelAdmin
from runtime.equality import USER_ID_BYTES_MAX
from runtime.mail_addresses import shown_address


class AddressField(forms.CharField):
    def prepare_value(self, value: Any) -> Any:
        return shown_address(value) if isinstance(value, str) else value

    def has_changed(self, initial: Any, data: Any) -> bool:
        return super().has_changed(self.prepare_value(initial), self.prepare_value(data))


class ShowsUserFields(ModelAdmin):
    """Shows the field `email` by shown_address() in forms, including read-only ones. Typed user IDs may be longer than
    the model's limit, which is that of the normalised text.

    In `list_display`, use `shown_email` in place of `email`."""

    # Fields that no read-only page shows.
    form_only: Sequence[str] = ()

    @admin.display(description=_("email address"), ordering="email")
    def shown_email(self, row: Any) -> str:
        return shown_address(row.email)

    def formfield_for_dbfield(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        if db_field.name == "email":
            kwargs["form_class"] = AddressField
        if db_field.name == "user_id":
            # A Hangul syllable can be typed as three characters.
            kwargs["max_length"] = USER_ID_BYTES_MAX
        return super().formfield_for_dbfield(db_field, request, **kwargs)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return (*super().get_readonly_fields(request, obj), "shown_email")

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        fieldsets = super().get_fieldsets(request, obj)
        if obj is None or self.has_change_permission(request, obj):
            return fieldsets
        sections = []
        for title, options in fieldsets:
            shown = [name for name in options["fields"] if name not in self.form_only]
            fields = ["shown_email" if name == "email" else name for name in shown]
            sections.append((title, {**options, "fields": fields}))
        return sections


def named_by_account(users: Iterable[Any]) -> list[Any]:
    """Return copies of auth's or a participant's users for the admin's log, which names each by its account's ID.

    A removal in auth replaces the user IDs in the log by these, but an entry may be written after it: by somebody who
    read the row before, or in a participant that has not yet heard of the removal."""
    named = [copy(user) for user in users]
    for user in named:
        if user.owner_signup_id is not None:
            user.user_id = str(user.owner_signup_id)
    return named
