"""Django's ModelAdmin as a base class: generic to mypy, and plain at run time, where it takes no type argument."""

from typing import TYPE_CHECKING, Any

from django.contrib import admin

if TYPE_CHECKING:
    ModelAdmin = admin.ModelAdmin[Any]
else:
    ModelAdmin = admin.ModelAdmin
