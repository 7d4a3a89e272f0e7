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

    What is missing or different takes no userId or email that a row of another record still has, so that all of it
    can be mended, in any order, without breaking a unique key.
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

    found: Comparison[RecordT, RowT] = Comparison()
    for record in records:
        same = (by_user_id.get(record.user_id_key), by_email.get(record.email))
        holders = tuple({id(row): row for row in same if row is not None}.values())
        strangers = tuple(row for row in holders if not belongs_to(record, row))
        owned = by_owner[record.owner_signup_id]
        # One of its own that has its userId or email is its row; else the oldest that it owns.
        own = [row for row in holders if row not in strangers] or owned[:1]
        if strangers or len(own) > 1:
            found.conflicting.append((record, strangers or tuple(own)))
        elif not own:
            found.missing.append(record)
        elif fields := _different_fields(record, own[0]):
            found.different.append((record, own[0], fields))
        # Left behind when auth's record had changed and was asked for again.
        found.superfluous += [row for row in owned if row not in own]
    return found


def _different_fields(record: Row, row: Row) -> tuple[str, ...]:
    return tuple(wire for name, wire in COMPARED.items() if getattr(record, name) != getattr(row, name))
