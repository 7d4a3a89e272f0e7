"""`manage.py check`: Django's own, which knows middleware by name, told what ours is derived from."""

from typing import Any

from django.conf import settings
from django.core.management.commands import check
from django.utils.deprecation import MiddlewareMixin
from django.utils.module_loading import import_string


class Command(check.Command):
    """The checks of `--deploy` look for 'django.middleware.security.SecurityMiddleware' and the like in MIDDLEWARE, and
    pass over HSTS, redirects, cookies and headers where it is missing. Ours are derived from these (docs/adr/0037), so
    while the checks run each goes by the name of the class that it is derived from."""

    def handle(self, *app_labels: Any, **options: Any) -> None:
        named = settings.MIDDLEWARE
        settings.MIDDLEWARE = [django_name(path) for path in named]
        try:
            super().handle(*app_labels, **options)
        finally:
            settings.MIDDLEWARE = named


def django_name(path: str) -> str:
    """The path of Django's middleware that the class at `path` is derived from, or `path` where there is none."""
    for base in import_string(path).__mro__:
        if base is not MiddlewareMixin and base.__module__.startswith("django."):
            return f"{base.__module__}.{base.__qualname__}"
    return path
