"""Apply the participants' verdicts to the lights of event transactions, one database transaction per batch."""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from uuid import UUID

from django.utils import timezone

from authsvc.lights import Kind, TransactionState, Verdict
from authsvc.models import DATABASE, EventTransaction, known_owners, removed_owners
from authsvc.signups.events import Holder
from livesettings.values import live
from runtime.database.bulk_sql import locked, overwrite
from runtime.database.transactions import atomically


@dataclass(frozen=True, slots=True)
class ReportedVerdict:
    """A participant's answer to one event transaction. `held_by` are the rows that it reports as duplicates."""

    transaction_id: UUID
    verdict: Verdict
    held_by: Sequence[Holder] = ()
    # The kind that the service was asked about. The previous release's relay may have published a change as a sign-up.
    kind: Kind | None = None


@atomically(DATABASE)
def apply_verdicts(reports: Sequence[ReportedVerdict]) -> dict[UUID, TransactionState]:
    """Decide lights by these verdicts. Return the current state of every known transaction, changed or not, so that the
    caller writes the projection again when an answer is redelivered."""
    now = timezone.now()
    by_transaction: dict[UUID, list[ReportedVerdict]] = {}
    for report in reports:
        by_transaction.setdefault(report.transaction_id, []).append(report)
    # Lock rows in a fixed order, so that concurrent consumers wait for each other instead of deadlocking.
    signups = locked(EventTransaction, list(by_transaction), using=DATABASE)
    holders = {row.owner_signup_id for report in reports for row in report.held_by}
    known = known_owners(holders) | removed_owners(holders)
    states: dict[UUID, TransactionState] = {}
    changed: list[EventTransaction] = []
    for signup in signups:
        before = signup.state
        verdicts = [
            report.verdict
            for report in by_transaction[signup.id]
            if report.verdict.service in before.lights
            and report.kind in (None, signup.kind)
            and not _is_premature(report, signup, known)
        ]
        after = before.decided(verdicts, at=now)
        states[signup.id] = after
        if after is not before:
            signup.take(after, at=now)
            changed.append(signup)
    overwrite(changed, fields=EventTransaction.STATE_FIELDS, using=DATABASE)
    erased = [row for row in changed if row.kind == Kind.REMOVAL and row.completed_at is not None]
    EventTransaction.objects.filter(id__in=[row.id for row in erased]).update(user_id="", user_id_key="")
    return states


def _is_premature(report: ReportedVerdict, row: EventTransaction, known: AbstractSet[UUID]) -> bool:
    """Whether the duplicate was reported too early, so that the light stays pending and the relay asks again.

    In auth, no two accounts share a userId or an address. If another account of auth's is in the way at a participant,
    then the participant has yet to hear that one of the two was removed or changed. After the last attempt, the verdict
    counts: that service's row contradicts auth, perhaps because an administrator edited it.
    """
    if not report.held_by or row.attempts >= live.RELAY_MAX_ATTEMPTS:
        return False
    holders = {each.owner_signup_id for each in report.held_by}
    return row.owner_signup_id not in holders and holders <= known
