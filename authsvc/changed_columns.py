"""Guards for User: save only the columns that changed, and refuse to change synchronised columns past change_account().

Every service has a copy of the synchronised columns. A change that bypasses `authsvc.signups.changes.change_account()`
would never reach the copies (docs/adr/0057).
"""

from collections.abc import Collection, Iterable
from typing import Any, ClassVar, Self

from django.db import models


class BypassError(Exception):
    """The code would change a synchronised column of a user without calling change_account()."""

    def __init__(self, columns: Iterable[str]) -> None:
        super().__init__(f"only change_account() may change these columns of a user: {', '.join(sorted(columns))}")


class KnowsChanges(models.Model):
    """A model that remembers the stored values of its columns."""

    # The columns that only change_account() writes in an existing row.
    GUARDED: ClassVar[frozenset[str]] = frozenset()
    _stored: dict[str, Any]

    class Meta:
        abstract = True

    @classmethod
    def from_db(cls, db: str | None, field_names: Collection[str], values: Collection[Any], **more: Any) -> Self:
        row = super().from_db(db, field_names, values, **more)
        row._stored = dict(zip(field_names, values, strict=True))
        return row

    def refresh_from_db(
        self,
        using: str | None = None,
        fields: Iterable[str] | None = None,
        from_queryset: models.QuerySet[Any] | None = None,
    ) -> None:
        names = None if fields is None else list(fields)
        super().refresh_from_db(using=using, fields=names, from_queryset=from_queryset)
        read = self._columns()
        self._stored = read if names is None else self._stored | {name: read[name] for name in names if name in read}

    def changed_columns(self) -> frozenset[str]:
        """Return the columns whose values differ from the stored ones. A row that was never saved has none."""
        if self._state.adding:
            return frozenset()
        return frozenset(
            name for name, value in self._columns().items() if name not in self._stored or self._stored[name] != value
        )

    def columns_to_save(self, asked: Collection[str] | None, *, is_change: bool) -> Collection[str] | None:
        """Return the columns that save() writes; None means all, for a new row. `asked` is its update_fields.

        Other columns are left alone: another request may have changed them since this one read the row, and a row that
        has been deleted since must not come back. Raise BypassError.
        """
        if self._state.adding:
            return asked
        columns = self.changed_columns() if asked is None else frozenset(asked)
        if not is_change and (guarded := columns & self.GUARDED):
            raise BypassError(guarded)
        return columns

    def note_saved(self, columns: Collection[str] | None) -> None:
        """Remember the columns that save() has written."""
        written = self._columns()
        kept = {} if columns is None else {k: v for k, v in self._stored.items() if k not in columns}
        self._stored = kept | {k: v for k, v in written.items() if columns is None or k in columns}

    def _columns(self) -> dict[str, Any]:
        values = self.__dict__
        return {field.attname: values[field.attname] for field in self._meta.concrete_fields if field.attname in values}


class GuardedQuerySet(models.QuerySet[Any]):
    """Refuse bulk updates of guarded columns. bulk_update() and aupdate() call update()."""

    def update(self, **values: Any) -> int:
        guarded = self.model.GUARDED.intersection(values)
        if guarded:
            raise BypassError(guarded)
        return super().update(**values)

    update.alters_data = True  # type: ignore[attr-defined]
