"""Route each service's models to its database."""

from typing import Any

from django.conf import settings
from django.db import DEFAULT_DB_ALIAS
from django.db.models import Model


class ServiceRouter:
    """Routes every model to its service's database, and keeps migrations and relations within that database."""

    def db_for_read(self, model: type[Model], **hints: Any) -> str:
        return database_of(model._meta.app_label)

    db_for_write = db_for_read

    def allow_relation(self, obj1: Model, obj2: Model, **hints: Any) -> bool:
        return database_of(obj1._meta.app_label) == database_of(obj2._meta.app_label)

    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool:
        return database_of(app_label) == db


def database_of(app_label: str) -> str:
    """Return the alias of the database that holds this app's tables."""
    return settings.SERVICE_DATABASES.get(app_label, DEFAULT_DB_ALIAS)


def service_of(alias: str) -> str:
    """Return the name of the service whose database has this alias, for messages."""
    return "auth" if alias == DEFAULT_DB_ALIAS else alias
