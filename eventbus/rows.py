"""Many rows in one statement.

For what a sign-up waits for: bulk_create takes several times as long to say the same, and can't say which rows it left
out (docs/adr/0008).
"""

from collections.abc import Sequence
from typing import Any, Final, TypeVar

import msgspec
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.utils import CursorWrapper
from django.db.models import AutoField, Field, Model

M = TypeVar("M", bound=Model)


def insert(rows: Sequence[Model], *, using: str) -> None:
    """Inserts these rows of one model. Keys that the database numbers are left to it, and no signals are sent. Raises
    django.db.IntegrityError where one of them conflicts with another row; then none is inserted."""
    if rows:
        with connections[using].cursor() as cursor:
            _insert(cursor, rows)


def insert_new(rows: Sequence[M], *, key: str, using: str) -> list[M]:
    """Inserts those of the rows that conflict with none that is there, and returns them; by the field `key`, in which
    they differ."""
    if not rows:
        return []
    connection = connections[using]
    field = _fields(rows[0], [key])[0]
    by_key = {field.get_db_prep_save(getattr(row, key), connection): row for row in rows}
    with connection.cursor() as cursor:
        _insert(cursor, rows, f"ON CONFLICT DO NOTHING RETURNING {field.column}")
        return [by_key[value] for (value,) in cursor.fetchall()]


def overwrite(rows: Sequence[Model], *, fields: Sequence[str], using: str) -> None:
    """Writes these fields of rows that are there and locked: an insert that always conflicts is one statement of plain
    values, where bulk_update makes a CASE for each field and row."""
    if rows:
        [key] = [field.column for field in rows[0]._meta.concrete_fields if field.primary_key]
        written = ", ".join(f"{field.column} = EXCLUDED.{field.column}" for field in _fields(rows[0], fields))
        with connections[using].cursor() as cursor:
            _insert(cursor, rows, f"ON CONFLICT ({key}) DO UPDATE SET {written}")


def _fields(row: Model, names: Sequence[str]) -> "list[Field[Any, Any]]":
    by_name = {field.name: field for field in row._meta.concrete_fields}
    return [by_name[name] for name in names]


def _insert(cursor: CursorWrapper, rows: Sequence[Model], on_conflict: str = "") -> None:
    connection, meta = cursor.db, rows[0]._meta
    fields = [field for field in meta.concrete_fields if not isinstance(field, AutoField)]
    columns = ", ".join(str(field.column) for field in fields)
    into = f"INSERT INTO {meta.db_table} ({columns})"
    if connection.vendor == "postgresql":
        # One value for all: a text of the statement that is always the same, and no place for each value, which
        # psycopg looks for in Python.
        types = ", ".join(f"{field.column} {_type(field, connection)}" for field in fields)
        document = _encoder.encode([{field.column: getattr(row, field.attname) for field in fields} for row in rows])
        source = f"SELECT {columns} FROM json_to_recordset(%s) AS row ({types})"  # noqa: S608 - names of the models
        cursor.execute(f"{into} {source} {on_conflict}", [document.decode()])
    else:
        values = ", ".join([f"({', '.join(['%s'] * len(fields))})"] * len(rows))
        cursor.execute(
            f"{into} VALUES {values} {on_conflict}",
            [field.get_db_prep_save(getattr(row, field.attname), connection) for row in rows for field in fields],
        )


def _type(field: "Field[Any, Any]", connection: BaseDatabaseWrapper) -> str:
    """Without its length: what is too long is to be an error, and is not to be cut."""
    return (field.db_type(connection) or "").partition("(")[0]


_encoder: Final = msgspec.json.Encoder()
