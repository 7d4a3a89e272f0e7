"""The reconciliation messages that auth sends, and auth's model of the participants' answers (docs/asyncapi.yaml)."""

from datetime import datetime
from typing import Annotated, Final, Literal
from uuid import UUID

import msgspec
from msgspec import Meta

from authsvc.models import User
from eventbus.messages import Outgoing, decoder_of, event_message

RECONCILE_REQUESTED: Final = "user.reconcile.req"
RECONCILE_ANSWERED: Final = "user.reconcile.res"

# The texts of findings are looked up in auth's database, and PostgreSQL rejects NUL even in a query. The maximum length
# exceeds that of every userId and address.
Text = Annotated[str, Meta(max_length=512, pattern=r"\A[^\x00]*\Z")]
FindingKind = Literal["missing", "different", "conflicting", "superfluous", "removed", "newer", "revived"]
# A version that auth's record can still exceed: the column has 31 bits.
Version = Annotated[int, Meta(ge=0, lt=2**31 - 1)]


class UserRecord(msgspec.Struct, frozen=True, rename="camel"):
    """Auth's record of a user, which every participant should have."""

    owner_signup_id: UUID
    user_id: str
    email: str
    user_name: str
    role: str
    version: int
    active: bool

    @classmethod
    def of(cls, user: User) -> "UserRecord":
        return cls(**user.as_record())


class OwnerRange(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """The owners after `after`, up to and including `up_to`. None means unbounded on that side."""

    after: UUID | None = None
    up_to: UUID | None = None


class ReconcileRequested(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A page that `services` compare with their rows. With `owners`, `records` and `removed` are complete for that
    range. `removed` lists owners whose account auth has removed, `gone` others of which auth has no record."""

    run_id: UUID
    page: int
    heal: bool
    occurred_at: datetime
    expires_at: datetime
    services: list[str]
    records: list[UserRecord]
    owners: OwnerRange | None = None
    unowned: bool = False
    gone: list[UUID] = []
    removed: list[UUID] = []


class ConflictingRow(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A conflicting row of a participant; a row created by an administrator has no owner."""

    user_id: Text
    email: Text
    owner_signup_id: UUID | None = None


class Finding(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """One discrepancy at a participant; `healed` if the participant, or auth, has fixed it. `version` is that of a row
    that is newer than auth's record."""

    kind: FindingKind
    user_id: Text
    email: Text
    owner_signup_id: UUID | None = None
    healed: bool = False
    fields: tuple[str, ...] = ()
    held_by: tuple[ConflictingRow, ...] = ()
    version: Version = 0


class ReconcileAnswered(msgspec.Struct, frozen=True, rename="camel"):
    """One service's findings on a page, or a part of them if there is `more`. Unknown fields are ignored."""

    run_id: UUID
    page: int
    service: str
    findings: list[Finding]
    more: bool


decode_answer: Final = decoder_of(ReconcileAnswered)


def reconcile_requested(page: ReconcileRequested) -> Outgoing:
    """Build a page's message. Its key spreads the pages over partitions and so over a participant's processes."""
    return event_message(RECONCILE_REQUESTED, page, key=f"{page.run_id}:{page.page}", source="/auth")
