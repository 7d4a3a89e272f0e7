"""Write many rows with one statement, where a sign-up waits for the result.

Django's bulk operations take several times as long: they build the statement anew each time, with a placeholder per
value that psycopg parses in Python. bulk_create also can't report which rows it skipped (docs/adr/0008).
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Final, NamedTuple, TypeVar
from uuid import UUID

import msgspec
from django.core.exceptions import EmptyResultSet
from django.db import connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.utils import CursorWrapper
from django.db.models import AutoField, Field, Model, QuerySet
from django.db.models.expressions import Col

M = TypeVar("M", bound=Model)


def insert(rows: Sequence[Model], *, using: str) -> None:
    """Insert rows of one model. The database assigns automatic keys, and no signals are sent.

    Raises django.db.IntegrityError if a row conflicts with another; then none is inserted."""
    if rows:
        with connections[using].cursor() as cursor:
            _insert(cursor, rows)


def insert_new(rows: Sequence[M], *, key: str, using: str) -> list[M]:
    """Insert the rows that conflict with no existing row, and return them. `key` names a field that is unique."""
    if not rows:
        return []
    connection = connections[using]
    field = _table(type(rows[0]), using).fields[key]
    by_key = _by_key(rows, field, connection)
    with connection.cursor() as cursor:
        _insert(cursor, rows, f"ON CONFLICT DO NOTHING RETURNING {field.column}")
        return [by_key[value] for (value,) in cursor.fetchall()]


def insert_new_with(rows: Sequence[M], others: Sequence[Model], *, key: str, using: str) -> list[M]:
    """Do insert_new(), and in the same transaction insert those of `others` whose primary key equals the `key` of an
    inserted row. Raises django.db.IntegrityError if one of `others` conflicts; then nothing is inserted."""
    if not (rows and others):
        return []
    with transaction.atomic(using=using):
        inserted = insert_new(rows, key=key, using=using)
        keys = {getattr(row, key) for row in inserted}
        insert([other for other in others if other.pk in keys], using=using)
    return inserted


def overwrite(rows: Sequence[Model], *, fields: Sequence[str], using: str, key: str = "") -> None:
    """Update these fields of existing, locked rows, and insert rows that don't exist.

    `key` names the unique field that identifies a row; by default it is the primary key. An upsert is one statement of
    plain values; bulk_update builds a CASE per field and row."""
    if rows:
        table = _table(type(rows[0]), using)
        columns = [table.fields[name].column for name in fields]
        written = ", ".join(f"{column} = EXCLUDED.{column}" for column in columns)
        target = table.fields[key].column if key else table.key
        with connections[using].cursor() as cursor:
            _insert(cursor, rows, f"ON CONFLICT ({target}) DO UPDATE SET {written}")


def locked(model: type[M], keys: Sequence[UUID], *, using: str) -> list[M]:
    """Return the rows with these primary keys, sorted by key, and lock them if the database supports row locks."""
    table, connection = _table(model, using), connections[using]
    values: list[Any] = [table.fields[table.key].get_db_prep_value(key, connection) for key in keys]
    if connection.vendor == "postgresql":
        condition, values = f"= ANY(%s) ORDER BY {table.key} FOR UPDATE", [values]
    else:
        condition = f"IN ({', '.join(['%s'] * len(values))}) ORDER BY {table.key}"
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {table.columns} FROM {table.name} WHERE {table.key} {condition}", values)  # noqa: S608
        found = cursor.fetchall()
    names = [field.attname for field in table.fields.values()]
    return [model.from_db(using, names, table.converted(row, connection)) for row in found]


def kept_from_deletion(rows: QuerySet[M], *, using: str) -> list[M]:
    """Evaluate the query, and let nobody delete these rows or lock them for an update of their keys until the
    transaction ends. Other updates, and other calls of this function, don't wait.

    Django has no FOR KEY SHARE. SQLite, which has one writer, needs no lock."""
    if connections[using].vendor != "postgresql":
        return list(rows.using(using))
    try:
        statement, values = rows.query.get_compiler(using).as_sql()
    except EmptyResultSet:
        return []
    return list(rows.model._base_manager.using(using).raw(f"{statement} FOR KEY SHARE", values))


class _Table(NamedTuple):
    """A model's table as the statements need it, without an automatic key."""

    name: str
    key: str
    fields: "dict[str, Field[Any, Any]]"
    columns: str
    # For PostgreSQL: a SELECT that reads rows from a JSON document.
    source: str
    # Position of a column, and the converters from the database's value to the field's.
    converters: Sequence[tuple[int, Col, Sequence[Callable[..., Any]]]]

    def converted(self, row: Sequence[Any], connection: BaseDatabaseWrapper) -> list[Any]:
        values = list(row)
        for place, column, converters in self.converters:
            for convert in converters:
                values[place] = convert(values[place], column, connection)
        return values


@cache
def _table(model: type[Model], using: str) -> _Table:
    meta = model._meta
    fields = {field.name: field for field in meta.concrete_fields if not isinstance(field, AutoField)}
    connection = connections[using]
    types = {str(field.column): field.db_type(connection) or "" for field in fields.values()}
    # Types without their lengths: a value that is too long must be an error and not be truncated.
    described = ", ".join(f"{column} {type_.partition('(')[0]}" for column, type_ in types.items())
    converters = [
        (place, column, [*connection.ops.get_db_converters(column), *column.get_db_converters(connection)])
        for place, column in enumerate(field.get_col(meta.db_table) for field in fields.values())
    ]
    return _Table(
        name=meta.db_table,
        key=next(str(field.column) for field in meta.concrete_fields if field.primary_key),
        fields=fields,
        columns=", ".join(types),
        source=f"SELECT * FROM json_to_recordset(%s) AS row ({described})",  # noqa: S608 - names of the model
        converters=[each for each in converters if each[-1]],
    )


def _insert(cursor: CursorWrapper, rows: Sequence[Model], on_conflict: str = "") -> None:
    connection = cursor.db
    table = _table(type(rows[0]), connection.alias)
    into = f"INSERT INTO {table.name} ({table.columns})"
    if connection.vendor == "postgresql":
        cursor.execute(f"{into} {table.source} {on_conflict}", [_document(rows, table)])
    else:
        places = ", ".join([f"({', '.join(['%s'] * len(table.fields))})"] * len(rows))
        values = [
            field.get_db_prep_save(getattr(row, field.attname), connection)
            for row in rows
            for field in table.fields.values()
        ]
        cursor.execute(f"{into} VALUES {places} {on_conflict}", values)


def _by_key(rows: Sequence[M], field: "Field[Any, Any]", connection: BaseDatabaseWrapper) -> dict[Any, M]:
    """Return the rows by the database's value of this field."""
    return {field.get_db_prep_save(getattr(row, field.attname), connection): row for row in rows}


def _document(rows: Sequence[Model], table: _Table) -> str:
    """Return all rows as one JSON document."""
    names = [field.attname for field in table.fields.values()]
    return _encoder.encode([{name: getattr(row, name) for name in names} for row in rows]).decode()


_encoder: Final = msgspec.json.Encoder()
