"""Migration operations that add an index to a table in use.

A migration with one of these must be `atomic = False` and contain nothing else, so that it can be repeated. The next
attempt drops an invalid index, which an interrupted build leaves behind, and keeps a valid one.
"""

from typing import Any

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import IntegrityError
from django.db.migrations.operations import AddConstraint, AddIndex
from django.db.models import UniqueConstraint


class AddIndexOnline(AddIndexConcurrently):
    """Build an index without blocking writers on PostgreSQL; on other databases act like AddIndex."""

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        model = to_state.apps.get_model(app_label, self.model_name)
        if not self.allow_migrate_model(schema_editor.connection.alias, model):
            return
        if schema_editor.connection.vendor == "postgresql":
            self._ensure_not_in_transaction(schema_editor)
            if not _is_built(schema_editor, self.index.name):
                super().database_forwards(app_label, schema_editor, from_state, to_state)
        elif self.index.name not in _names(schema_editor, model._meta.db_table):
            AddIndex.database_forwards(self, app_label, schema_editor, from_state, to_state)

    def database_backwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        if schema_editor.connection.vendor != "postgresql":
            AddIndex.database_backwards(self, app_label, schema_editor, from_state, to_state)
            return
        super().database_backwards(app_label, schema_editor, from_state, to_state)


class AddUniqueOnline(AddConstraint):
    """Add a unique constraint without blocking writers on PostgreSQL; on other databases act like AddConstraint.

    If two rows have the same values, it raises IntegrityError, which names them, and leaves no index behind.
    """

    constraint: UniqueConstraint

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        model = to_state.apps.get_model(app_label, self.model_name)
        connection = schema_editor.connection
        if connection.vendor != "postgresql":
            super().database_forwards(app_label, schema_editor, from_state, to_state)
        elif self.allow_migrate_model(connection.alias, model):
            quote = schema_editor.quote_name
            table, name = quote(model._meta.db_table), quote(self.constraint.name)
            columns = ", ".join(quote(model._meta.get_field(field).column) for field in self.constraint.fields)
            if _is_constraint(schema_editor, self.constraint.name):
                return
            if not _is_built(schema_editor, self.constraint.name):
                try:
                    schema_editor.execute(f"CREATE UNIQUE INDEX CONCURRENTLY {name} ON {table} ({columns})")
                except IntegrityError:
                    # Even an invalid unique index would keep rejecting new rows.
                    schema_editor.execute(f"DROP INDEX CONCURRENTLY {name}")
                    raise
            schema_editor.execute(f"ALTER TABLE {table} ADD CONSTRAINT {name} UNIQUE USING INDEX {name}")


def _is_built(schema_editor: Any, name: str) -> bool:
    """Whether PostgreSQL has a valid index of this name. An invalid one, from an interrupted build, is dropped."""
    with schema_editor.connection.cursor() as cursor:
        cursor.execute("SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(%s)", [name])
        found = cursor.fetchone()
    if found == (False,):
        schema_editor.execute(f"DROP INDEX CONCURRENTLY {schema_editor.quote_name(name)}")
    return bool(found == (True,))


def _is_constraint(schema_editor: Any, name: str) -> bool:
    """Whether PostgreSQL has a unique constraint of this name, which is also the name of its index."""
    with schema_editor.connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM pg_constraint WHERE conindid = to_regclass(%s) AND contype = 'u'", [name])
        return cursor.fetchone() is not None


def _names(schema_editor: Any, table: str) -> set[str]:
    """Return the names of the table's indexes and constraints."""
    with schema_editor.connection.cursor() as cursor:
        return set(schema_editor.connection.introspection.get_constraints(cursor, table))
