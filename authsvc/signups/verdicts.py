"""Apply the participants' verdicts to the lights of event transactions, one database transaction per batch."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from django.utils import timezone

from authsvc.lights import Kind, Status, TransactionState, Verdict
from authsvc.models import DATABASE, EventTransaction, RemovedAccount, User
from authsvc.signups.events import HeldBy
from runtime.database.bulk_sql import locked, overwrite
from runtime.database.transactions import atomically


@dataclass(frozen=True, slots=True)
class ReportedVerdict:
    """A participant's answer to one event transaction. `held_by` are the rows that it reports as duplicates."""

    transaction_id: UUID
    verdict: Verdict
    held_by: Sequence[HeldBy] = ()


def apply_verdicts(reports: Sequence[ReportedVerdict]) -> dict[UUID, TransactionState]:
    """Decide lights by these verdicts. Return the current state of every known transaction, changed or not, so that the
    caller writes the projection again when an answer is redelivered."""
    return atomically(lambda: _apply(reports), using=DATABASE)


def _apply(reports: Sequence[ReportedVerdict]) -> dict[UUID, TransactionState]:
    now = timezone.now()
    verdicts: dict[UUID, list[Verdict]] = {}
    premature = _premature(reports)
    for number, report in enumerate(reports):
        decided = verdicts.setdefault(report.transaction_id, [])
        if number not in premature:
            decided.append(report.verdict)
    # Lock rows in a fixed order, so that concurrent consumers wait for each other instead of deadlocking.
    signups = locked(EventTransaction, list(verdicts), using=DATABASE)
    states: dict[UUID, TransactionState] = {}
    changed: list[EventTransaction] = []
    for signup in signups:
        before = signup.state
        after = before.decided((v for v in verdicts[signup.id] if v.service in before.lights), at=now)
        states[signup.id] = after
        if after is not before:
            signup.take(after, at=now)
            changed.append(signup)
    overwrite(changed, fields=EventTransaction.STATE_FIELDS, using=DATABASE)
    erased = [row for row in changed if row.kind == Kind.REMOVAL and row.completed_at is not None]
    EventTransaction.objects.filter(id__in=[row.id for row in erased]).update(user_id="", user_id_key="")
    return states


def _premature(reports: Sequence[ReportedVerdict]) -> set[int]:
    """Return the positions of the reported duplicates that are none: auth has removed the account in the way, or has
    changed it since, and the participant has yet to hear of it. Their lights stay pending, and the relay asks again."""
    duplicates = {
        number: report
        for number, report in enumerate(reports)
        if report.held_by and report.verdict.status is Status.FAIL
    }
    if not duplicates:
        return set()
    owners = {row.owner_signup_id for report in duplicates.values() for row in report.held_by}
    versions = dict(User.objects.filter(owner_signup_id__in=owners).values_list("owner_signup_id", "version"))
    removed = set(RemovedAccount.objects.filter(owner_signup_id__in=owners).values_list("owner_signup_id", flat=True))

    def is_outdated(row: HeldBy) -> bool:
        return row.owner_signup_id in removed or versions.get(row.owner_signup_id, 0) > row.version

    return {number for number, report in duplicates.items() if all(map(is_outdated, report.held_by))}
