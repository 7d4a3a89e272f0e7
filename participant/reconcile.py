"""A participant's part in `manage.py reconcile`: compare its rows with a page of auth's records, and repair what can be
repaired automatically (docs/adr/0013). docs/asyncapi.yaml specifies the events.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Final
from uuid import UUID

import msgspec
from django.db import router
from msgspec import Meta

from eventbus.incoming_traces import traceparent_of
from eventbus.messages import HandledBatch, Incoming, Outgoing, decode_each, decoder_of, event_message
from participant.comparison import Comparison, compare
from participant.events import UserRecord
from participant.models import ParticipantUser
from participant.new_users import OnNewUsers, call_on_new_users
from participant.user_table import rows_about, write, write_tombstones
from runtime.database.transactions import atomically

logger = logging.getLogger(__name__)

RECONCILE_REQUESTED: Final = "user.reconcile.req"
RECONCILE_ANSWERED: Final = "user.reconcile.res"

# Keeps a message with the longest texts below half of Kafka's limit of 1 MB.
FINDINGS_MAX: Final = 250
RECORDS_MAX: Final = 500
REMOVED_MAX: Final = 1000
# Maximum bytes of a page, which is Kafka's limit: RECORDS_MAX records with the longest texts, 4 bytes per character.
PAGE_MAX: Final = 1024 * 1024


class FindingKind(StrEnum):
    """The kind of a discrepancy. A person decides about conflicting and superfluous rows, and auth about newer rows and
    revived records; the others are repaired here."""

    MISSING = "missing"  # no row for auth's record
    DIFFERENT = "different"  # the record's row has other values
    CONFLICTING = "conflicting"  # another record's row, or an administrator's, has its userId or email, or two rows do
    SUPERFLUOUS = "superfluous"  # a row without a record in auth
    REMOVED = "removed"  # a row of an account that auth has removed
    NEWER = "newer"  # the record's row has a newer version than the record
    REVIVED = "revived"  # auth has a record of an account that it once removed


class OwnerRange(msgspec.Struct, frozen=True, rename="camel"):
    """The owners after `after`, up to and including `up_to`. None leaves that end open."""

    after: UUID | None = None
    up_to: UUID | None = None


class ReconcilePage(msgspec.Struct, frozen=True, rename="camel"):
    """A request for the discrepancies of `records`. If `owners` is given, these are all of auth's in that range.

    `unowned` asks for all rows that no sign-up created. `gone` lists owners of which auth has no record, `removed` the
    owners of accounts that it has removed. Raises ValueError if two records would be the same row.
    """

    run_id: UUID
    page: int
    expires_at: Annotated[datetime, Meta(tz=True)]
    services: list[str]
    heal: bool = False
    records: Annotated[list[UserRecord], Meta(max_length=RECORDS_MAX)] = []
    owners: OwnerRange | None = None
    unowned: bool = False
    gone: list[UUID] = []
    removed: Annotated[list[UUID], Meta(max_length=REMOVED_MAX)] = []

    def __post_init__(self) -> None:
        for name in ("owner_signup_id", "user_id_key", "email"):
            if len({getattr(record, name) for record in self.records}) < len(self.records):
                raise ValueError(f"two records have the same {name}")


class ConflictingRow(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A row that is in the way. A row that an administrator created has no owner."""

    user_id: str
    email: str
    owner_signup_id: UUID | None = None


class Finding(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """One discrepancy, healed or not. It describes auth's record or, if superfluous or removed, the row. `version` is
    that of a newer row."""

    kind: FindingKind
    user_id: str
    email: str
    owner_signup_id: UUID | None = None
    healed: bool = False
    fields: tuple[str, ...] = ()
    held_by: tuple[ConflictingRow, ...] = ()
    version: int = 0


class ReconcileAnswered(msgspec.Struct, frozen=True, rename="camel"):
    """The findings of one service. Many findings take several messages, of which all but the last have `more`."""

    run_id: UUID
    page: int
    service: str
    findings: Sequence[Finding]
    more: bool
    occurred_at: datetime


decode_page: Final = decoder_of(ReconcilePage)


@dataclass(frozen=True, slots=True)
class ReconcileHandler:
    """Compare each page that asks `service` with the rows of `model`, heal if the page asks for it, and answer.

    This is an eventbus.messages.Handler. Each page is one transaction. An expired page is ignored: nobody waits for its
    answer, and healing would restore outdated values. Raises the errors of participant.accounts.AccountHandler.
    """

    service: str
    model: type[ParticipantUser]
    on_new_users: OnNewUsers | None = None

    def __call__(self, batch: Sequence[Incoming]) -> HandledBatch:
        findings = atomically(router.db_for_write(self.model))(self._compare_and_heal)
        return answer_pages(batch, findings, service=self.service)

    def _compare_and_heal(self, page: ReconcilePage) -> list[Finding]:
        """Compare the page's records with their rows. Rows that are newer than the page, and removed accounts, are only
        reported: the page may be outdated by now."""
        removed = self._removed(page)
        rows = [row for row in rows_about(self.model, page.records, is_locked=True) if row.pk not in removed]
        own = {row.owner_signup_id: row for row in rows}
        buried = {row.owner_signup_id for row in rows if row.removed_at} | {*page.removed}
        living = [record for record in page.records if record.owner_signup_id not in buried]
        newer = [
            (record, row)
            for record in living
            if (row := own.get(record.owner_signup_id)) is not None and row.version > record.version
        ]
        left_alone = {record.owner_signup_id for record, _ in newer}
        records = [record for record in living if record.owner_signup_id not in left_alone]
        found = compare(records, [row for row in rows if not row.removed_at], gone=frozenset(page.gone))
        if page.heal:
            self._heal(page, found)
        return [
            *(finding_about(FindingKind.REMOVED, row, healed=page.heal) for row in removed.values()),
            *(
                finding_about(FindingKind.REVIVED, record)
                for record in page.records
                if record.owner_signup_id in buried
            ),
            *(finding_about(FindingKind.NEWER, record, version=row.version) for record, row in newer),
            *_findings(found, is_healed=page.heal),
            *self._rows_without_record(page),
        ]

    def _removed(self, page: ReconcilePage) -> dict[int, ParticipantUser]:
        """Return and lock the rows of accounts that auth has removed."""
        rows = self.model.objects.select_for_update().filter(owner_signup_id__in=page.removed).order_by("id")
        return {row.pk: row for row in rows}

    def _rows_without_record(self, page: ReconcilePage) -> Iterator[Finding]:
        rows = self.model.objects.none()
        if page.unowned:
            rows = self.model.objects.filter(owner_signup_id__isnull=True)
        elif page.owners is not None:
            rows = self.model.objects.filter(owner_signup_id__isnull=False)
            if page.owners.after is not None:
                rows = rows.filter(owner_signup_id__gt=page.owners.after)
            if page.owners.up_to is not None:
                rows = rows.filter(owner_signup_id__lte=page.owners.up_to)
        known = {record.owner_signup_id for record in page.records} | {*page.removed}
        for user_id, email, owner in rows.order_by("id").values_list("user_id", "email", "owner_signup_id"):
            if owner not in known:
                yield Finding(FindingKind.SUPERFLUOUS, user_id, email, owner)

    def _heal(self, page: ReconcilePage, found: Comparison[UserRecord, ParticipantUser]) -> None:
        buried = self.model.every.filter(owner_signup_id__in=page.removed, removed_at__isnull=False)
        known = set(buried.values_list("owner_signup_id", flat=True))
        write_tombstones(self.model, [(owner, 1) for owner in page.removed if owner not in known])
        write(
            self.model,
            updates=[(record, row) for record, row, _ in found.different],
            inserts=[(record, record.owner_signup_id) for record in found.missing],
        )
        call_on_new_users(self.model, [record.owner_signup_id for record in found.missing], self.on_new_users)


def answer_pages(
    batch: Sequence[Incoming], findings: Callable[[ReconcilePage], Sequence[Finding]], *, service: str
) -> HandledBatch:
    """Answer each page that asks the service and has not expired with its findings."""
    decoded, rejected = decode_each(batch, decode_page, most=PAGE_MAX)
    answers: list[Outgoing] = []
    for message, page in decoded:
        if service not in page.services:
            continue
        if page.expires_at < datetime.now(UTC):
            logger.warning("ignored page %d of the reconcile run %s: it has expired", page.page, page.run_id)
            continue
        answers += answers_to(message, page, findings(page), service=service)
    return HandledBatch(answers=answers, rejected=rejected)


def answers_to(
    message: Incoming, page: ReconcilePage, findings: Sequence[Finding], *, service: str
) -> Iterator[Outgoing]:
    """Yield the messages that report the findings on `page`, with at most FINDINGS_MAX in each."""
    for start in range(0, len(findings) or 1, FINDINGS_MAX):
        event = ReconcileAnswered(
            run_id=page.run_id,
            page=page.page,
            service=service,
            findings=findings[start : start + FINDINGS_MAX],
            more=start + FINDINGS_MAX < len(findings),
            occurred_at=datetime.now(UTC),
        )
        key, source = f"{page.run_id}:{page.page}", f"/{service}"
        yield event_message(RECONCILE_ANSWERED, event, key=key, source=source, traceparent=traceparent_of(message))


def _findings(found: Comparison[UserRecord, ParticipantUser], *, is_healed: bool) -> Iterator[Finding]:
    for record in found.missing:
        yield finding_about(FindingKind.MISSING, record, healed=is_healed)
    for record, _, fields in found.different:
        yield finding_about(FindingKind.DIFFERENT, record, healed=is_healed, fields=fields)
    for record, rows in found.conflicting:
        held_by = tuple(ConflictingRow(row.user_id, row.email, row.owner_signup_id) for row in rows)
        yield finding_about(FindingKind.CONFLICTING, record, held_by=held_by)


def finding_about(kind: FindingKind, about: UserRecord | ParticipantUser, **more: Any) -> Finding:
    """Return a finding that describes a record or a row, with these further fields."""
    return Finding(kind, about.user_id, about.email, about.owner_signup_id, **more)
