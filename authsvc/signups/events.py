"""The events that auth publishes and consumes (docs/asyncapi.yaml). Each service has its own model of them."""

from datetime import UTC, datetime
from typing import Annotated, Final, Literal, Protocol
from uuid import UUID

import msgspec
from msgspec import Meta

from authsvc.lights import Kind, Status, Verdict
from authsvc.models import User
from eventbus.messages import Incoming, Outgoing, decoder_of, event_message
from runtime.tracing import traceparent

NEW_USER_REQUESTED: Final = "user.newUser.req"
NEW_USER_ANSWERED: Final = "user.newUser.res"
# The topics of requests and answers, by the kind of event transaction.
REQUEST_TOPICS: Final = {
    Kind.SIGNUP: NEW_USER_REQUESTED,
    Kind.CHANGE: "user.changeUser.req",
    Kind.REMOVAL: "user.removeUser.req",
}
ANSWER_TOPICS: Final = {
    Kind.SIGNUP: NEW_USER_ANSWERED,
    Kind.CHANGE: "user.changeUser.res",
    Kind.REMOVAL: "user.removeUser.res",
}

# Reasons are stored and displayed. PostgreSQL's jsonb rejects NUL: one such answer would fail its whole batch.
REASON_MAX: Final = 255
_NO_NUL: Final = r"\A[^\x00]*\Z"


class Asked(Protocol):
    """The fields of an event transaction that its event needs."""

    @property
    def id(self) -> UUID: ...
    @property
    def kind(self) -> str: ...
    @property
    def owner_signup_id(self) -> UUID: ...
    @property
    def user_id(self) -> str: ...
    @property
    def record_version(self) -> int: ...


class NewUserRequested(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """Asks the participants to set up this user: always auth's stored record, even if the sign-up is a duplicate."""

    signup_id: UUID
    owner_signup_id: UUID
    user_id: str
    email: str
    user_name: str
    role: str
    occurred_at: datetime
    attempt: int
    services: list[str] | None = None
    version: int = 1
    active: bool = True


class UserChangeRequested(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """Asks the participants to bring their copies up to date with auth's stored record."""

    change_id: UUID
    owner_signup_id: UUID
    user_id: str
    email: str
    user_name: str
    role: str
    active: bool
    version: int
    occurred_at: datetime
    attempt: int
    services: list[str] | None = None


class UserRemovalRequested(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """Asks the participants to delete their copies for good. `user_id` is "" once auth has erased it."""

    change_id: UUID
    owner_signup_id: UUID
    user_id: str
    version: int
    occurred_at: datetime
    attempt: int
    services: list[str] | None = None


class Holder(msgspec.Struct, frozen=True, rename="camel"):
    """A participant's row that has the user ID or address of the requested user: its owner, and its version."""

    owner_signup_id: UUID
    version: int = 1


class _Answered(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    service: str
    status: Literal["SUCCESS", "FAIL"]
    reason: Annotated[str, Meta(max_length=REASON_MAX, pattern=_NO_NUL)] | None = None
    held_by: Annotated[list[Holder], Meta(max_length=2)] = []

    @property
    def verdict(self) -> Verdict:
        return Verdict(service=self.service, status=Status(self.status), reason=self.reason)


class NewUserAnswered(_Answered, frozen=True, kw_only=True):
    """A participant's verdict on a sign-up. Unknown fields are ignored."""

    transaction_id: UUID = msgspec.field(name="signupId")


class ChangeAnswered(_Answered, frozen=True, kw_only=True):
    """A participant's verdict on a change or a removal. Unknown fields are ignored."""

    transaction_id: UUID = msgspec.field(name="changeId")


Answer = NewUserAnswered | ChangeAnswered
_decode_new_user = decoder_of(NewUserAnswered)
_decode_change = decoder_of(ChangeAnswered)


def decode_answer(message: Incoming) -> Answer:
    """Decode an answer. Raise msgspec.DecodeError, UnicodeError or RecursionError if the message isn't one."""
    return _decode_new_user(message) if message.topic == NEW_USER_ANSWERED else _decode_change(message)


def requested(transaction: Asked, record: User | None, *, attempt: int, services: list[str] | None = None) -> Outgoing:
    """Build the message that asks `services` (all by default) on behalf of one event transaction. `record` is auth's
    current record of the user; only a removal needs none."""
    if transaction.kind == Kind.REMOVAL:
        removal = UserRemovalRequested(
            change_id=transaction.id,
            owner_signup_id=transaction.owner_signup_id,
            user_id=transaction.user_id,
            version=transaction.record_version,
            occurred_at=datetime.now(UTC),
            attempt=attempt,
            services=services,
        )
        key = transaction.user_id or str(transaction.owner_signup_id)
        return _message(Kind.REMOVAL, removal, key=key, transaction_id=transaction.id)
    if record is None:
        raise ValueError(f"auth has no record of the user of {transaction.kind} {transaction.id}")
    if transaction.kind == Kind.SIGNUP:
        return new_user_requested(record, signup_id=transaction.id, attempt=attempt, services=services)
    change = UserChangeRequested(
        **record.as_record(),
        change_id=transaction.id,
        occurred_at=datetime.now(UTC),
        attempt=attempt,
        services=services,
    )
    return _message(Kind.CHANGE, change, key=record.user_id, transaction_id=transaction.id)


def new_user_requested(user: User, *, signup_id: UUID, attempt: int, services: list[str] | None = None) -> Outgoing:
    """Build the message that asks `services` (all by default) to set up this user on behalf of one sign-up."""
    event = NewUserRequested(
        **user.as_record(),
        signup_id=signup_id,
        occurred_at=datetime.now(UTC),
        attempt=attempt,
        services=services,
    )
    return _message(Kind.SIGNUP, event, key=user.user_id, transaction_id=signup_id)


def _message(kind: Kind, event: msgspec.Struct, *, key: str, transaction_id: UUID) -> Outgoing:
    """All messages of an event transaction, even those of a replay a month later, share one trace whose ID is that of
    the transaction (docs/adr/0020)."""
    return event_message(REQUEST_TOPICS[kind], event, key=key, source="/auth", traceparent=traceparent(transaction_id))
