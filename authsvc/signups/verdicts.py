"""Turning lights: the participants' verdicts on sign-ups, in one transaction for a batch."""

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
    """Turns the lights that these verdicts decide. Returns the present state of every sign-up that is known,
    changed or not, so that the caller writes the projection of a repeated answer again."""
    return atomically(lambda: _apply(reports), using=DATABASE)


def _apply(reports: Sequence[ReportedVerdict]) -> dict[UUID, SignUpState]:
    now = timezone.now()
    verdicts: dict[UUID, list[Verdict]] = {}
    for report in reports:
        verdicts.setdefault(report.signup_id, []).append(report.verdict)
    # Locked in one order, so that two consumers wait for each other rather than deadlock.
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
