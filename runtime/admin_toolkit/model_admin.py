"""Django's ModelAdmin as a base class: generic for mypy, but not at run time, where it takes no type argument."""

from typing import TYPE_CHECKING, Any

from django.contrib import admin

if TYPE_CHECKING:
    ModelAdmin = admin.ModelAdmin[Any]
else:
    ModelAdmin = admin.ModelAdmin
