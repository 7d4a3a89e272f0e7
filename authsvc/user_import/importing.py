"""The two passes of an import: check every record of the file, then register the valid ones in batches."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final
from uuid import UUID

from authsvc.accounts.passwords import NOT_CHOSEN
from authsvc.lights import AUTH
from authsvc.models import Role, known_owners, removed_owners
from authsvc.signups.events import new_user_requested
from authsvc.signups.registration import (
    KeyTakenError,
    NewSignUp,
    Registration,
    foresee_users,
    register_new_users,
    register_users,
)
from authsvc.signups.transaction_counts import count_begun
from authsvc.user_import.checks import RejectedError, check_record, former_ids_of, source_fields
from authsvc.user_import.formats import Format
from authsvc.user_import.paced_events import PacedEvents
from authsvc.user_import.rejects import Rejects
from authsvc.user_import.spool import Spool
from runtime.tracing import log_traces

logger = logging.getLogger(__name__)

# Sign-ups per transaction, as many as the writer of `POST /user` saves at a time.
BATCH: Final = 500
REMOVED_ERROR: Final = "userId: This account has been removed."


@dataclass(frozen=True, slots=True)
class ImportCounts:
    """Numbers of records. `known` are those that an earlier run, or an earlier line, has imported."""

    imported: int = 0
    known: int = 0
    rejected: int = 0

    def __add__(self, other: "ImportCounts") -> "ImportCounts":
        return ImportCounts(self.imported + other.imported, self.known + other.known, self.rejected + other.rejected)

    @property
    def total(self) -> int:
        return self.imported + self.known + self.rejected


@dataclass(frozen=True, slots=True)
class UserImport:
    """The import of one file, in two passes: check(), then register()."""

    format: Format
    spool: Spool
    rejects: Rejects
    may_add_admins: bool

    def check(self) -> Iterator[ImportCounts]:
        """Check every record of the file: add the valid ones to `spool` and the others to `rejects`. Yield the count of
        each record; `imported` counts those that register() will import. Raise UnreadableFileError."""
        for record in self.format.records():
            try:
                is_first = self.spool.add(record.line, check_record(record, may_add_admins=self.may_add_admins))
            except RejectedError as error:
                self.rejects.add(record.source, f"Line {record.line}: {error}")
                yield ImportCounts(rejected=1)
            else:
                yield ImportCounts(imported=1) if is_first else ImportCounts(known=1)

    def register(self, events: PacedEvents | None, on_admin: Callable[[NewSignUp], None]) -> Iterator[ImportCounts]:
        """Register the records of `spool` in batches, and yield the counts of each. Call `on_admin` for each
        administrator that was added. Without `events`, save nothing and only say what would happen.

        A record that auth refuses as a duplicate is added to `rejects` and leaves no sign-up. Raise TransientError or
        django.db.OperationalError while the database is unavailable.
        """
        for batch in self.spool.batches(BATCH):
            refused = _known(batch)
            new = [each for each in batch if each.signup_id not in refused]
            outcomes = foresee_users(_hashed(new)) if events is None else _register(_hashed(new), events)
            imported = 0
            for each, outcome in zip(new, outcomes, strict=True):
                refused[each.signup_id] = reason = _refusal(outcome)
                if reason is None:
                    imported += 1
                    if each.role == Role.ADMIN:
                        on_admin(each)
            rejected = [(each, reason) for each in batch if (reason := refused[each.signup_id])]
            for each, reason in rejected:
                self.rejects.add(self.format.source_of(source_fields(each)), reason)
            yield ImportCounts(imported, len(batch) - imported - len(rejected), len(rejected))


def _known(batch: Sequence[NewSignUp]) -> dict[UUID, str | None]:
    """Return the IDs of those that were imported before, with the reason to reject them; "" if the user exists."""
    ids = {each: new.signup_id for new in batch for each in (new.signup_id, *former_ids_of(new))}
    users, removed = known_owners(ids), removed_owners(ids)
    return {**{ids[each]: "" for each in users}, **{ids[each]: REMOVED_ERROR for each in removed}}


def _refusal(outcome: Registration | KeyTakenError) -> str | None:
    """Return why the record is refused; "" if another run has just imported it, and None if this one has."""
    if isinstance(outcome, KeyTakenError) or not outcome.is_new:
        return ""
    return None if outcome.signup.is_owner else outcome.state.lights[AUTH].reason


def _hashed(batch: Sequence[NewSignUp]) -> list[NewSignUp]:
    """Give those without a hash an unusable password: they set one through "forgot password"."""
    return [new if new.password else replace(new, password=NOT_CHOSEN) for new in batch]


def _register(batch: Sequence[NewSignUp], events: PacedEvents) -> list[Registration | KeyTakenError]:
    """Register the batch like the writer of `POST /user`, and publish the events of its new users."""
    if not batch:
        return []
    strangers = register_new_users(batch)
    rest = iter(register_users([new for new, found in zip(batch, strangers, strict=True) if found is None]))
    outcomes = [found or next(rest) for found in strangers]
    saved = [each for each in outcomes if isinstance(each, Registration) and each.is_new and each.signup.is_owner]
    events.publish(
        [new_user_requested(each.record, signup_id=each.signup.id, attempt=1) for each in saved if each.record]
    )
    count_begun([each.state for each in saved])
    log_traces(logger, "users imported: %d", [each.signup.id for each in saved])
    return outcomes
