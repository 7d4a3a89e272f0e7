"""Read and write a participant's table of users, which also holds the tombstones of removed accounts.

Every writer locks rows in the order of their ids and inserts them in the order of their userIds, so that two writers
mostly wait for each other rather than deadlock.
"""

from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Final, TypeVar
from uuid import UUID

from django.db import router
from django.db.models import Q, QuerySet
from django.utils import timezone

from participant.comparison import vacating
from participant.events import Request, UserRecord, UserRemoval
from participant.models import ParticipantUser
from runtime.database.bulk_sql import insert, overwrite

UserT = TypeVar("UserT", bound=ParticipantUser)

# The columns that auth decides about. Only this service's administrators decide about `is_active`.
_OF_AUTH: Final = ("user_id", "user_id_key", "email", "user_name", "role", "version", "is_account_active")
_USER_ID_KEY = attrgetter("user_id_key")


def rows_about(model: type[UserT], about: Sequence[Request | UserRecord], *, is_locked: bool) -> QuerySet[UserT]:
    """Return every row and tombstone that has the owner, userId or email of one of these."""
    records = [each for each in about if not isinstance(each, UserRemoval)]
    rows = model.every.filter(
        Q(owner_signup_id__in={each.owner_signup_id for each in about})
        | Q(user_id_key__in={record.user_id_key for record in records})
        | Q(email__in={record.email for record in records})
    )
    return rows.select_for_update().order_by("id") if is_locked else rows


def new_row(model: type[UserT], record: UserRecord, signup_id: UUID) -> UserT:
    """Return an unsaved row with the record's values, for the sign-up `signup_id`."""
    return _with_values(model(signup_id=signup_id, owner_signup_id=record.owner_signup_id), record)


def write(
    model: type[UserT],
    *,
    updates: Sequence[tuple[UserRecord, UserT]] = (),
    inserts: Sequence[tuple[UserRecord, UUID]] = (),
) -> None:
    """Bring locked rows up to date with their records, and insert records, each for a sign-up.

    An update gives a row to its record's owner if it had another one. Call it in a transaction. Raises
    django.db.IntegrityError if another writer has inserted the owner, userId or email in the meantime.
    """
    using = router.db_for_write(model)
    moved = [row for record, row in updates if row.owner_signup_id != record.owner_signup_id]
    for record, row in updates:
        if row in moved:
            row.signup_id = row.owner_signup_id = record.owner_signup_id
    parked = vacating(updates, [record for record, _ in inserts])
    for row in parked:
        # No user can have these keys: a userId has no space, and an address has an @.
        row.user_id_key = row.email = f"parked {row.pk}"
    if first := {row.pk: row for row in (*moved, *parked)}:
        model.every.bulk_update(first.values(), ["signup_id", "owner_signup_id", "user_id_key", "email"])
    overwrite(
        [_with_values(row, record) for record, row in updates], key="owner_signup_id", fields=_OF_AUTH, using=using
    )
    rows = [new_row(model, record, signup_id) for record, signup_id in inserts]
    insert(sorted(rows, key=_USER_ID_KEY), using=using)


def write_tombstones(model: type[ParticipantUser], removed: Iterable[tuple[UUID, int]]) -> None:
    """Replace the row of each owner by a tombstone with this version, or add one where there is no row.

    A tombstone keeps nothing of the person. Its keys are ones that no user can have."""
    now = timezone.now()
    tombstones = [
        model(
            owner_signup_id=owner,
            user_id_key=f"removed {owner}",
            email=f"removed {owner}",
            role="",
            is_active=False,
            is_account_active=False,
            version=version,
            created_at=now,
            removed_at=now,
        )
        for owner, version in removed
    ]
    columns = [field.name for field in model._meta.concrete_fields if not field.primary_key]
    overwrite(tombstones, key="owner_signup_id", fields=columns, using=router.db_for_write(model))


def _with_values(row: UserT, record: UserRecord) -> UserT:
    for name in _OF_AUTH:
        setattr(row, name, getattr(record, name))
    return row
