"""Migrations that every participant needs."""

from collections.abc import Callable
from typing import Any

from django.db.models import Count, Max


def keep_newest_row_of_each_owner(app_label: str, model_name: str) -> Callable[[Any, Any], None]:
    """Return a data migration that leaves each owner one row, as the unique constraint that follows requires.

    Until then, a replay after a change of userId and email in auth added a second row for the same account. The older
    row has outdated values, so the newest is kept. It stays inactive if an administrator deactivated any of them.
    """

    def migrate(apps: Any, schema_editor: Any) -> None:
        rows = apps.get_model(app_label, model_name).objects.using(schema_editor.connection.alias)
        several = (
            rows.exclude(owner_signup_id=None)
            .order_by()
            .values("owner_signup_id")
            .annotate(number=Count("id"), newest=Max("id"))
            .filter(number__gt=1)
        )
        for each in several:
            older = rows.filter(owner_signup_id=each["owner_signup_id"], id__lt=each["newest"])
            if older.filter(is_active=False).exists():
                rows.filter(id=each["newest"]).update(is_active=False)
            older.delete()

    return migrate
