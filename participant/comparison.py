"""How auth's records and a participant's rows differ: pure, without a database."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Generic, Protocol, TypeVar
from uuid import UUID


class Row(Protocol):
    """What is compared. A participant's row that an administrator made has no owner."""

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


# A record of auth's is the row that it would become.
RecordT = TypeVar("RecordT", bound=Row)
RowT = TypeVar("RowT", bound=Row)
# Without a bound: mypy looks at written type arguments before it knows the fields of a model.
AnyRecord = TypeVar("AnyRecord")
AnyRow = TypeVar("AnyRow")

# What makes a row different, by the names of the contract.
COMPARED: Final = {
    "user_id": "userId",
    "email": "email",
    "user_name": "userName",
    "role": "role",
    "owner_signup_id": "ownerSignupId",
}


@dataclass(slots=True)
class Comparison(Generic[AnyRecord, AnyRow]):
    """What is wrong, by kind. Records stand in their order; what agrees is not here."""

    missing: list[AnyRecord] = field(default_factory=list)
    # With the row to correct, and the names of the fields.
    different: list[tuple[AnyRecord, AnyRow, tuple[str, ...]]] = field(default_factory=list)
    # With the rows that are in the way.
    conflicting: list[tuple[AnyRecord, tuple[AnyRow, ...]]] = field(default_factory=list)
    superfluous: list[AnyRow] = field(default_factory=list)


def compare(
    records: Sequence[RecordT], rows: Iterable[RowT], *, gone: Collection[UUID] = ()
) -> Comparison[RecordT, RowT]:
    """What is wrong about `records`.

    `rows` are all that hold the userId or the email of one of them, or that are owned by one. A row whose owner is
    among `gone`, of which auth has no record any more, belongs to the record that has its userId or email now.

    What is missing or different takes no userId or email from a row, except from one that another record in `different`
    corrects: users who exchanged an email correct each other's rows. So all of it can be healed in one transaction, if
    the rows in `vacating()` give up their keys first.
    """
    by_user_id: dict[str, RowT] = {}
    by_email: dict[str, RowT] = {}
    by_owner: defaultdict[UUID | None, list[RowT]] = defaultdict(list)
    for row in rows:
        by_user_id[row.user_id_key] = by_email[row.email] = row
        by_owner[row.owner_signup_id].append(row)
    asked = {record.user_id_key for record in records}

    def belongs_to(record: RecordT, row: RowT) -> bool:
        if row.owner_signup_id in gone:
            # Of a record that has its userId and another that has its email, the first gets it.
            return row.user_id_key == record.user_id_key or row.user_id_key not in asked
        return row.owner_signup_id == record.owner_signup_id

    matches: list[_Match[RecordT, RowT]] = []
    for record in records:
        same = (by_user_id.get(record.user_id_key), by_email.get(record.email))
        holders = tuple({id(row): row for row in same if row is not None}.values())
        strangers = tuple(row for row in holders if not belongs_to(record, row))
        owned = by_owner[record.owner_signup_id]
        # One of its own that has its userId or email is its row; else the oldest that it owns.
        own = tuple(row for row in holders if row not in strangers) or tuple(owned[:1])
        matches.append(_Match(record, own, strangers, tuple(row for row in owned if row not in own)))

    found: Comparison[RecordT, RowT] = Comparison()
    blocked = _blocked(matches)
    for match in matches:
        if id(match) in blocked:
            found.conflicting.append((match.record, match.strangers or match.own))
        elif not match.own:
            found.missing.append(match.record)
        elif fields := _different_fields(match.record, match.own[0]):
            found.different.append((match.record, match.own[0], fields))
        found.superfluous += match.left_behind
    return found


@dataclass(frozen=True, slots=True)
class _Match(Generic[AnyRecord, AnyRow]):
    """A record with its own rows, the rows of others that hold its keys, and further rows of its owner, left behind
    when auth's record had changed and was asked for again."""

    record: AnyRecord
    own: tuple[AnyRow, ...]
    strangers: tuple[AnyRow, ...]
    left_behind: tuple[AnyRow, ...]


def _blocked(matches: Sequence[_Match[RecordT, RowT]]) -> set[int]:
    """The ids of the matches that can't be healed: two rows are their own, or a stranger's row will keep their keys.

    A stranger's row is out of the way if another record here corrects it, for no two records have the same key. Assume
    that of all at first, then spread what blocks one to those that wait for it: a cycle that nothing blocks is healed.
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


def vacating(found: Comparison[RecordT, RowT]) -> list[RowT]:
    """The rows to correct that still hold a userId or email that another record in `found` takes."""
    wanted = [*found.missing, *(record for record, *_ in found.different)]
    user_ids = {record.user_id_key for record in wanted}
    emails = {record.email for record in wanted}
    return [
        row
        for record, row, _ in found.different
        if (row.user_id_key != record.user_id_key and row.user_id_key in user_ids)
        or (row.email != record.email and row.email in emails)
    ]


def _different_fields(record: Row, row: Row) -> tuple[str, ...]:
    return tuple(wire for name, wire in COMPARED.items() if getattr(record, name) != getattr(row, name))
