"""What auth asks the participants when it reconciles, and its reading of what they answer (docs/asyncapi.yaml)."""

from datetime import datetime
from typing import Annotated, Final, Literal
from uuid import UUID

import msgspec
from msgspec import Meta

from authsvc.models import User
from eventbus.messages import Incoming, Outgoing, cloud_event_headers

RECONCILE_REQUESTED: Final = "user.reconcile.req"
RECONCILE_ANSWERED: Final = "user.reconcile.res"

# What is found is looked up in auth's database, and PostgreSQL refuses a NUL even in a question. No userId or address
# is as long as this.
Text = Annotated[str, Meta(max_length=512, pattern=r"\A[^\x00]*\Z")]
Kind = Literal["missing", "different", "conflicting", "superfluous"]


class UserRecord(msgspec.Struct, frozen=True, rename="camel"):
    """Auth's record of a user, as every participant should have it."""

    owner_signup_id: UUID
    user_id: str
    email: str
    user_name: str
    role: str

    @classmethod
    def of(cls, user: User) -> "UserRecord":
        return cls(
            owner_signup_id=user.owner_signup_id,
            user_id=user.user_id,
            email=user.email,
            user_name=user.user_name,
            role=user.role,
        )


class OwnerRange(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """The owners after `after` up to and including `up_to`; without one of the two it has no end there."""

    after: UUID | None = None
    up_to: UUID | None = None


class ReconcileRequested(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A page: asks `services` what is wrong about `records`; if `owners` is there, they are all of auth's in it."""

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


class HeldBy(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A participant's row that is in the way; an administrator's has no owner."""

    user_id: Text
    email: Text
    owner_signup_id: UUID | None = None


class Finding(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """One thing that is wrong at a participant, or was until it `healed` it."""

    kind: Kind
    user_id: Text
    email: Text
    owner_signup_id: UUID | None = None
    healed: bool = False
    fields: tuple[str, ...] = ()
    held_by: tuple[HeldBy, ...] = ()


class ReconcileAnswered(msgspec.Struct, frozen=True, rename="camel"):
    """What one service found on a page, or the first part of it if there is `more`. Unknown fields are ignored."""

    run_id: UUID
    page: int
    service: str
    findings: list[Finding]
    more: bool


_encoder = msgspec.json.Encoder()
_answer_decoder = msgspec.json.Decoder(ReconcileAnswered)


def decode_answer(message: Incoming) -> ReconcileAnswered:
    """Raises msgspec.DecodeError, UnicodeError or RecursionError for what is no answer."""
    return _answer_decoder.decode(message.value or b"")


def reconcile_requested(page: ReconcileRequested) -> Outgoing:
    """The message of a page. Its key spreads the pages over the partitions, hence over a participant's processes."""
    return Outgoing(
        topic=RECONCILE_REQUESTED,
        key=f"{page.run_id}:{page.page}",
        value=_encoder.encode(page),
        headers=cloud_event_headers(type=RECONCILE_REQUESTED, source="/auth"),
    )
