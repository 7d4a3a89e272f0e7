"""The events that auth publishes and consumes (docs/asyncapi.yaml). Each service has its own model of them."""

from datetime import UTC, datetime
from typing import Annotated, Final, Literal
from uuid import UUID

import msgspec
from msgspec import Meta

from authsvc.lights import Status, Verdict
from authsvc.models import User
from eventbus.messages import Incoming, Outgoing, cloud_event_headers
from runtime.tracing import traceparent

NEW_USER_REQUESTED: Final = "user.newUser.req"
NEW_USER_ANSWERED: Final = "user.newUser.res"

# Reasons are stored and displayed. PostgreSQL's jsonb rejects NUL: one such answer would fail its whole batch.
REASON_MAX: Final = 255
_NO_NUL: Final = r"\A[^\x00]*\Z"

_encoder = msgspec.json.Encoder()


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


class NewUserAnswered(msgspec.Struct, frozen=True, rename="camel"):
    """A participant's verdict. Unknown fields are ignored."""

    signup_id: UUID
    service: str
    status: Literal["SUCCESS", "FAIL"]
    reason: Annotated[str, Meta(max_length=REASON_MAX, pattern=_NO_NUL)] | None = None

    @property
    def verdict(self) -> Verdict:
        return Verdict(service=self.service, status=Status(self.status), reason=self.reason)


_answer_decoder = msgspec.json.Decoder(NewUserAnswered)


def decode_answer(message: Incoming) -> NewUserAnswered:
    """Decode an answer. Raise msgspec.DecodeError, UnicodeError or RecursionError if the message isn't one."""
    return _answer_decoder.decode(message.value or b"")


def new_user_requested(user: User, *, signup_id: UUID, attempt: int, services: list[str] | None = None) -> Outgoing:
    """Build the message that asks `services` (all by default) to set up this user on behalf of one sign-up.

    All messages of a sign-up, even those of a replay a month later, share one trace whose ID is the sign-up's ID
    (docs/adr/0020).
    """
    event = NewUserRequested(
        signup_id=signup_id,
        owner_signup_id=user.owner_signup_id,
        user_id=user.user_id,
        email=user.email,
        user_name=user.user_name,
        role=user.role,
        occurred_at=datetime.now(UTC),
        attempt=attempt,
        services=services,
    )
    return Outgoing(
        topic=NEW_USER_REQUESTED,
        key=user.user_id,
        value=_encoder.encode(event),
        headers=cloud_event_headers(type=NEW_USER_REQUESTED, source="/auth", traceparent=traceparent(signup_id)),
    )
