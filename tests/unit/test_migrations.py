"""CONTRIBUTING.md's rules for migrations: sign-ups continue meanwhile, and so does the previous release afterwards."""

from collections.abc import Iterator

import pytest
from django.db import migrations, models
from django.db.migrations import Migration
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState, StateApps
from django.db.models import NOT_PROVIDED

from runtime.database.indexes import AddIndexOnline, AddUniqueOnline
from signup_sync.participants import PACKAGES

OURS = ("authsvc", *PACKAGES.values(), "scimsvc", "eventbus", "livesettings")
# These must be repeatable: they run outside a transaction, and the migration may contain nothing else.
ALONE = (AddIndexOnline, AddUniqueOnline, migrations.RunPython)
# These may change only what is not part of the database's schema.
STATE_ONLY = (
    migrations.AlterModelTable, migrations.RenameModel, migrations.RenameField, migrations.AlterModelOptions,
    migrations.AlterField,
)  # fmt: skip
KNOWN = (*ALONE, migrations.CreateModel, migrations.AddField, migrations.RemoveIndex)


def complaints(migration: Migration) -> Iterator[str]:
    """The faults of a migration for a database in use. The first migration of an app finds no table in use."""
    if migration.initial:
        return
    tables = {op.model_name_lower for op in migration.operations if isinstance(op, migrations.AddField)}
    if migration.atomic and len(tables) > 1:
        yield f"it locks several tables in one transaction: {sorted(tables)}. A sign-up may lock them in another order"
    new_models = {op.name_lower for op in migration.operations if isinstance(op, migrations.CreateModel)}
    for operation in migration.operations:
        if getattr(operation, "model_name_lower", None) not in new_models and not leaves_tables(operation, migration):
            yield from complaints_about(operation)
        if isinstance(operation, ALONE) and (migration.atomic or len(migration.operations) > 1):
            yield f"{operation.describe()}: set atomic = False, and put nothing else into the migration"


def leaves_tables(operation: Operation, migration: Migration) -> bool:
    """Whether a renamed model or field, or other labels, leave all tables and columns as they are."""
    if not isinstance(operation, STATE_ONLY):
        return False
    state = MigrationLoader(None).project_state(migration.dependencies)
    for earlier in migration.operations[: migration.operations.index(operation)]:
        earlier.state_forwards(migration.app_label, state)
    before = columns(state)
    operation.state_forwards(migration.app_label, state)
    return columns(state) == before


def columns(state: ProjectState) -> dict[tuple[str, str], object]:
    """Each table and column with the part of its definition that is in the database."""
    found: dict[tuple[str, str], object] = {}
    for model in StateApps(state.real_apps, state.models).get_models():
        for field in model._meta.local_concrete_fields:
            _, path, _, options = field.deconstruct()
            known = {name: value for name, value in options.items() if name not in field.non_db_attrs}
            found[model._meta.db_table, str(field.column)] = (path, repr(known))
    return found


def complaints_about(operation: Operation) -> Iterator[str]:
    if isinstance(operation, migrations.AddField):
        field = operation.field
        if not (field.null or field.db_default is not NOT_PROVIDED or field.many_to_many):
            yield f"{operation.describe()}: the previous release's INSERTs need a db_default or NULL"
        if field.unique or field.db_index:
            yield f"{operation.describe()}: build its index by AddIndexOnline or AddUniqueOnline"
    elif isinstance(operation, (migrations.AddIndex, migrations.AddConstraint)) and not isinstance(operation, ALONE):
        yield f"{operation.describe()}: use AddIndexOnline or AddUniqueOnline"
    elif not isinstance(operation, KNOWN):
        yield f"{operation.describe()}: it may lock or rewrite the table, or take what the previous release uses"


def test_all_migrations_let_sign_ups_and_the_previous_release_continue():
    ours = [each for (app, _), each in MigrationLoader(None).disk_migrations.items() if app in OURS]
    assert len(ours) > 15
    assert {str(each): found for each in ours if (found := list(complaints(each)))} == {}


INDEX = models.Index(fields=["email"], name="an_index")
UNIQUE = models.UniqueConstraint(fields=["email"], name="a_constraint")


@pytest.mark.parametrize(
    ("operations", "atomic"),
    [
        ([migrations.AddIndex("user", INDEX)], False),
        ([migrations.AddConstraint("user", UNIQUE)], False),
        ([AddIndexOnline("user", INDEX)], True),
        ([AddUniqueOnline("user", UNIQUE), AddIndexOnline("user", INDEX)], False),
        ([migrations.RunPython(migrations.RunPython.noop)], True),
        ([migrations.RunSQL("UPDATE authsvc_user SET email = lower(email)")], False),
        ([migrations.AddField("user", "a_field", models.IntegerField(default=0))], True),
        ([migrations.AddField("user", "a_field", models.IntegerField(null=True, db_index=True))], True),
        ([migrations.AlterField("user", "email", models.TextField())], True),
        ([migrations.RemoveField("user", "email")], True),
        ([migrations.RenameField("user", "email", "mail")], True),
        ([migrations.DeleteModel("user")], True),
        ([migrations.RenameModel("User", "Person")], True),
        ([migrations.AddField(name, "a_field", models.IntegerField(null=True)) for name in ("user", "signup")], True),
        ([migrations.AlterModelTable("user", "person")], True),
    ],
)
def test_a_migration_that_breaks_a_rule_is_refused(operations: list[Operation], atomic: bool):
    migration = Migration("0099_example", "authsvc")
    migration.dependencies = [("authsvc", "0011_owner_index")]
    migration.operations, migration.atomic = operations, atomic
    assert list(complaints(migration))
