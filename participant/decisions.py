"""The rules by which a participant handles a batch (docs/invariants.md, 1 and 13): pure functions, without a database.

The messages of one account arrive in any order, because they are on three topics. So versions decide what is written,
and a removal is final.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from operator import attrgetter
from typing import Generic, Protocol, TypeVar
from uuid import UUID

from participant.comparison import ComparedRow, compare
from participant.events import NewUser, Request, UserChange, UserRecord, UserRemoval
from participant.verdict import DONE, REMOVED, Holder, Judgement, VerdictCode


class Row(ComparedRow, Protocol):
    """A participant's row, or the tombstone of a removed account. An administrator's row has no sign-up."""

    @property
    def signup_id(self) -> UUID | None: ...
    @property
    def removed_at(self) -> datetime | None: ...


RowT = TypeVar("RowT", bound=Row)
# Without a bound, because mypy checks explicit type arguments before it knows a model's fields.
AnyRow = TypeVar("AnyRow")


@dataclass(slots=True)
class Decision(Generic[AnyRow]):
    """The rows to write, and the judgement on each request, in order."""

    judgements: list[Judgement] = field(default_factory=list)
    removals: list[UserRemoval] = field(default_factory=list)
    # Each with the row to bring up to date.
    updates: list[tuple[UserRecord, AnyRow]] = field(default_factory=list)
    # Each with the sign-up that its new row is for.
    inserts: list[tuple[UserRecord, UUID]] = field(default_factory=list)

    @property
    def overwrites(self) -> bool:
        """Whether existing rows are written, so that they must be locked."""
        return bool(self.removals or self.updates)


def decide(requests: Sequence[Request], rows: Iterable[RowT]) -> Decision[RowT]:
    """Decide a batch. `rows` must include every row and tombstone that has the owner, userId or email of a request.

    Removals come first, so the userId of a removed account is free for a new person in the same batch. Of the other
    requests for an account, only the newest record is written. If two accounts exchange a key, both changes are
    written (`compare`). If two claim the same key, the first in the batch gets it.
    """
    removals, records = _newest(requests)
    there = list(rows)
    buried = {row.owner_signup_id for row in there if row.removed_at}
    removed = buried | removals.keys()
    own = {row.owner_signup_id: row for row in there if row.owner_signup_id and row.owner_signup_id not in removed}
    unowned = [row for row in there if row.owner_signup_id is None]
    wanted = [
        record
        for owner, record in records.items()
        if owner not in removed and (owner not in own or own[owner].version < record.version)
    ]
    granted, blocked = _settle(wanted, [*own.values(), *unowned])
    signups = _first_signups(requests) | {owner: row.signup_id for owner, row in own.items()}

    def judge(request: Request) -> Judgement:
        owner = request.owner_signup_id
        if isinstance(request, UserRemoval):
            return DONE
        if owner in removed:
            return REMOVED
        row = granted.get(owner, own.get(owner))
        if row is None or (isinstance(request, UserChange) and row.version < request.version):
            return blocked[owner]
        return DONE if isinstance(request, UserChange) else _judge_new(request, row, signups[owner])

    return Decision(
        judgements=[judge(request) for request in requests],
        removals=[removal for owner, removal in removals.items() if owner not in buried],
        updates=[(record, own[owner]) for owner, record in granted.items() if owner in own],
        inserts=[(record, signups[owner] or owner) for owner, record in granted.items() if owner not in own],
    )


def _newest(requests: Sequence[Request]) -> tuple[dict[UUID, UserRemoval], dict[UUID, UserRecord]]:
    """Return each account's newest removal and its newest record, by owner."""
    removals: dict[UUID, UserRemoval] = {}
    records: dict[UUID, UserRecord] = {}
    for request in requests:
        owner = request.owner_signup_id
        if isinstance(request, UserRemoval):
            removals[owner] = max(removals.get(owner, request), request, key=attrgetter("version"))
        else:
            records[owner] = max(records.get(owner, request), request, key=attrgetter("version"))
    return removals, records


def _first_signups(requests: Sequence[Request]) -> dict[UUID, UUID | None]:
    """Return the sign-up for which a row of each owner would be inserted: the first to ask for it."""
    signups: dict[UUID, UUID | None] = {}
    for request in requests:
        owner = request.owner_signup_id
        if not isinstance(request, UserRemoval):
            signups.setdefault(owner, request.signup_id if isinstance(request, NewUser) else owner)
    return signups


def _judge_new(request: NewUser, row: ComparedRow, signup_id: UUID | None) -> Judgement:
    """Judge a new user whose account has this row, which was made for the sign-up `signup_id`.

    Its keys may differ from the request's: the record may be newer, or an administrator may have changed the row.
    """
    if request.signup_id in (signup_id, request.owner_signup_id):
        return DONE
    is_same_email = row.email == request.email and row.user_id_key != request.user_id_key
    verdict = VerdictCode.DUPLICATE_EMAIL if is_same_email else VerdictCode.DUPLICATE_USER_ID
    return Judgement(verdict, (Holder(request.owner_signup_id, row.version),))


def _settle(
    wanted: Sequence[UserRecord], rows: Iterable[ComparedRow]
) -> tuple[dict[UUID, UserRecord], dict[UUID, Judgement]]:
    """Return the records that can be written into the table `rows`, and the judgement on each of the others, by owner.

    `compare` requires records with different keys, so records that share a key take turns. A blocked record is tried
    again after rows were updated, because that may have vacated its keys.
    """
    table: dict[object, ComparedRow] = {row.owner_signup_id or id(row): row for row in rows}
    granted: dict[UUID, UserRecord] = {}
    blocked: dict[UUID, Judgement] = {}
    tried: list[UserRecord] = []
    waiting = list(wanted)
    while waiting:
        asked, waiting = _first_of_each_key(waiting)
        found = compare(asked, table.values())
        writable = [*found.missing, *(record for record, *_ in found.different)]
        granted |= {record.owner_signup_id: record for record in writable}
        table |= {record.owner_signup_id: record for record in writable}
        tried += [record for record, _ in found.conflicting]
        blocked |= {record.owner_signup_id: _conflict(record, rows) for record, rows in found.conflicting}
        if found.different:
            left = {record.owner_signup_id for record in (*tried, *waiting)}
            waiting, tried = [record for record in wanted if record.owner_signup_id in left], []
    return granted, blocked


def _first_of_each_key(records: Sequence[UserRecord]) -> tuple[list[UserRecord], list[UserRecord]]:
    """Split the records into those that share no userId or email with an earlier one, and the others."""
    keys: set[tuple[str, str]] = set()
    first: list[UserRecord] = []
    others: list[UserRecord] = []
    for record in records:
        own = {("userId", record.user_id_key), ("email", record.email)}
        (first if keys.isdisjoint(own) else others).append(record)
        keys |= own
    return first, others


def _conflict(record: UserRecord, rows: Sequence[ComparedRow]) -> Judgement:
    is_user_id = any(row.user_id_key == record.user_id_key for row in rows)
    holders = tuple(Holder(row.owner_signup_id, row.version) for row in rows if row.owner_signup_id)
    return Judgement(VerdictCode.DUPLICATE_USER_ID if is_user_id else VerdictCode.DUPLICATE_EMAIL, holders)
