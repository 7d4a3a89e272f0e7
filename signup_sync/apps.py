from importlib import import_module
from typing import Any

from django.conf import settings

# Import the module, not the class: Django would mistake an AppConfig class in this namespace for this app's own.
from django.contrib.admin import apps
from django.contrib.admin.checks import check_admin_app, check_dependencies
from django.core import checks


class AdministrationConfig(apps.SimpleAdminConfig):
    """Replaces django.contrib.admin in INSTALLED_APPS. The URLs import the admin's pages (signup_sync.urls), so that
    only the processes that serve them pay for the import."""

    default = False
    default_site = "signup_sync.administration.site.Administration"

    def ready(self) -> None:
        checks.register(check_dependencies, checks.Tags.admin)
        checks.register(check_pages, checks.Tags.admin)


def check_pages(app_configs: Any, **kwargs: Any) -> list[checks.CheckMessage]:
    """Check all of the admin's pages; Django's own check would find none if it ran before the URLs are imported."""
    import_module(settings.ROOT_URLCONF)
    found: list[checks.CheckMessage] = check_admin_app(app_configs, **kwargs)
    return found
