"""Email addresses in the admin: shown with the domain in Unicode, stored with the domain in ASCII."""

from typing import Any

from django import forms
from django.contrib import admin
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from runtime.admin_toolkit.model_admin import ModelAdmin
from runtime.mail_addresses import shown_address


class AddressField(forms.CharField):
    def prepare_value(self, value: Any) -> Any:
        return shown_address(value) if isinstance(value, str) else value

    def has_changed(self, initial: Any, data: Any) -> bool:
        return super().has_changed(self.prepare_value(initial), self.prepare_value(data))


class ShowsAddresses(ModelAdmin):
    """Show the field `email` by shown_address() in forms, including read-only ones.

    In `list_display`, use `shown_email` in its place."""

    @admin.display(description=_("email address"), ordering="email")
    def shown_email(self, row: Any) -> str:
        return shown_address(row.email)

    def formfield_for_dbfield(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        if db_field.name == "email":
            kwargs["form_class"] = AddressField
        return super().formfield_for_dbfield(db_field, request, **kwargs)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return (*super().get_readonly_fields(request, obj), "shown_email")

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        fieldsets = super().get_fieldsets(request, obj)
        if obj is None or self.has_change_permission(request, obj):
            return fieldsets
        return [
            (title, {**options, "fields": ["shown_email" if name == "email" else name for name in options["fields"]]})
            for title, options in fieldsets
        ]
