"""Apply the participants' verdicts to the lights of sign-ups, one transaction per batch."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from django.utils import timezone

from authsvc.lights import SignUpState, Verdict
from authsvc.models import DATABASE, SignUp
from runtime.database.bulk_sql import locked, overwrite
from runtime.database.transactions import atomically


@dataclass(frozen=True, slots=True)
class ReportedVerdict:
    """A participant's answer to one sign-up."""

    signup_id: UUID
    verdict: Verdict


def apply_verdicts(reports: Sequence[ReportedVerdict]) -> dict[UUID, SignUpState]:
    """Decide lights by these verdicts. Return the current state of every known sign-up, changed or not, so that the
    caller writes the projection again when an answer is redelivered."""
    return atomically(lambda: _apply(reports), using=DATABASE)


def _apply(reports: Sequence[ReportedVerdict]) -> dict[UUID, SignUpState]:
    now = timezone.now()
    verdicts: dict[UUID, list[Verdict]] = {}
    for report in reports:
        verdicts.setdefault(report.signup_id, []).append(report.verdict)
    # Lock rows in a fixed order, so that concurrent consumers wait for each other instead of deadlocking.
    signups = locked(SignUp, list(verdicts), using=DATABASE)
    states: dict[UUID, SignUpState] = {}
    changed: list[SignUp] = []
    for signup in signups:
        before = signup.state
        after = before.decided((v for v in verdicts[signup.id] if v.service in before.lights), at=now)
        states[signup.id] = after
        if after is not before:
            signup.take(after, at=now)
            changed.append(signup)
    overwrite(changed, fields=SignUp.STATE_FIELDS, using=DATABASE)
    return states
