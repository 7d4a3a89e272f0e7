"""Admin classes for rows that nobody edits in the admin."""

from typing import Any

from django.http import HttpRequest

from runtime.admin_toolkit.model_admin import ModelAdmin


class ReadOnlyAdmin(ModelAdmin):
    """An admin without adding, changing and deleting."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False
