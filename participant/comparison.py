"""Compare auth's records with a participant's rows: pure functions, without a database."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Generic, Protocol, TypeVar
from uuid import UUID


class ComparedRow(Protocol):
    """The compared fields. A participant's row that an administrator made has no owner."""

    @property
    def owner_signup_id(self) -> UUID | None: ...
    @property
    def user_id(self) -> str: ...
    @property
    def user_id_key(self) -> str: ...
    @property
    def email(self) -> str: ...
    @property
    def user_name(self) -> str: ...
    @property
    def role(self) -> str: ...
    @property
    def version(self) -> int: ...
    @property
    def is_account_active(self) -> bool: ...


# Auth's record has the form of the row that it would become.
RecordT = TypeVar("RecordT", bound=ComparedRow)
RowT = TypeVar("RowT", bound=ComparedRow)
# Without a bound, because mypy checks explicit type arguments before it knows a model's fields.
AnyRecord = TypeVar("AnyRecord")
AnyRow = TypeVar("AnyRow")

# Fields whose difference counts, with their names in the contract.
COMPARED: Final = {
    "user_id": "userId",
    "email": "email",
    "user_name": "userName",
    "role": "role",
    "is_account_active": "active",
    "version": "version",
    "owner_signup_id": "ownerSignupId",
}


@dataclass(slots=True)
class Comparison(Generic[AnyRecord, AnyRow]):
    """The discrepancies by kind, in the order of the records. Records that agree with their row are not included."""

    missing: list[AnyRecord] = field(default_factory=list)
    # Each with the row to correct and the names of the differing fields.
    different: list[tuple[AnyRecord, AnyRow, tuple[str, ...]]] = field(default_factory=list)
    # Each with the rows that are in the way.
    conflicting: list[tuple[AnyRecord, tuple[AnyRow, ...]]] = field(default_factory=list)


def compare(
    records: Sequence[RecordT], rows: Iterable[RowT], *, gone: Collection[UUID] = ()
) -> Comparison[RecordT, RowT]:
    """Return the discrepancies between `records` and `rows`.

    `rows` must include every row that holds the userId or email of a record, or that a record owns; an owner has at
    most one. A row whose owner is in `gone`, which lists owners that auth no longer has, belongs to the record that has
    its userId or email now.

    A missing or different record takes a userId or email only from a row that another record in `different` corrects:
    users who exchanged emails correct each other's rows. So everything can be healed in one transaction, provided that
    the rows that `vacating` returns give up their keys first.
    """
    by_user_id: dict[str, RowT] = {}
    by_email: dict[str, RowT] = {}
    by_owner: dict[UUID | None, RowT] = {}
    for row in rows:
        by_user_id[row.user_id_key] = by_email[row.email] = by_owner[row.owner_signup_id] = row
    asked = {record.user_id_key for record in records}

    def belongs_to(record: RecordT, row: RowT) -> bool:
        if row.owner_signup_id in gone:
            # If one record has its userId and another its email, the row belongs to the first.
            return row.user_id_key == record.user_id_key or row.user_id_key not in asked
        return row.owner_signup_id == record.owner_signup_id

    matches: list[_Match[RecordT, RowT]] = []
    for record in records:
        same = (
            by_user_id.get(record.user_id_key),
            by_email.get(record.email),
            by_owner.get(record.owner_signup_id),
        )
        found_rows = {id(row): row for row in same if row is not None}.values()
        own = tuple(row for row in found_rows if belongs_to(record, row))
        matches.append(_Match(record, own, tuple(row for row in found_rows if row not in own)))

    found: Comparison[RecordT, RowT] = Comparison()
    blocked = _blocked(matches)
    for match in matches:
        if id(match) in blocked:
            found.conflicting.append((match.record, match.strangers or match.own))
        elif not match.own:
            found.missing.append(match.record)
        elif fields := _different_fields(match.record, match.own[0]):
            found.different.append((match.record, match.own[0], fields))
    return found


@dataclass(frozen=True, slots=True)
class _Match(Generic[AnyRecord, AnyRow]):
    """A record with the rows that belong to it, and the other rows that hold its keys."""

    record: AnyRecord
    own: tuple[AnyRow, ...]
    strangers: tuple[AnyRow, ...]


def _blocked(matches: Sequence[_Match[RecordT, RowT]]) -> set[int]:
    """Return the ids of the matches that can't be healed: they have two own rows, or another's row keeps their keys.

    Another's row stops being in the way if its record is corrected too, because no two records share a key. Assume at
    first that all are, then propagate each block to the matches that wait for it. A cycle without a block is healed.
    """
    corrected_by = {id(match.own[0]): match for match in matches if len(match.own) == 1}
    blocked = {id(match) for match in matches if len(match.own) > 1}
    waiting: defaultdict[int, list[int]] = defaultdict(list)
    for match in matches:
        for row in match.strangers:
            if (holder := corrected_by.get(id(row))) is None:
                blocked.add(id(match))
            else:
                waiting[id(holder)].append(id(match))
    spreading = list(blocked)
    while spreading:
        newly = [each for each in waiting[spreading.pop()] if each not in blocked]
        blocked.update(newly)
        spreading += newly
    return blocked


def vacating(updates: Iterable[tuple[RecordT, RowT]], inserts: Iterable[RecordT]) -> list[RowT]:
    """Return the rows that still hold a userId or email which another of these records needs.

    `updates` has the rows to bring up to date with their records, `inserts` the records that become rows.
    """
    pairs = list(updates)
    wanted = [*inserts, *(record for record, _ in pairs)]
    user_ids = {record.user_id_key for record in wanted}
    emails = {record.email for record in wanted}
    return [
        row
        for record, row in pairs
        if (row.user_id_key != record.user_id_key and row.user_id_key in user_ids)
        or (row.email != record.email and row.email in emails)
    ]


def _different_fields(record: ComparedRow, row: ComparedRow) -> tuple[str, ...]:
    return tuple(wire for name, wire in COMPARED.items() if getattr(record, name) != getattr(row, name))
