"""The messages of `user.newUser.req` and `user.newUser.res`, which docs/asyncapi.yaml specifies.

Every request that passes validation here can be stored by SQLite and PostgreSQL alike. So an invalid message is
rejected alone, and never fails its batch.
"""

from datetime import UTC, datetime
from typing import Annotated, Final, Literal
from uuid import UUID

import msgspec
from msgspec import Meta

from eventbus.message_traces import traceparent_of
from eventbus.messages import Incoming, Outgoing, cloud_event_headers
from participant.limits import EMAIL_MAX, ROLE_MAX, USER_ID_MAX, USER_NAME_MAX
from participant.verdict import Verdict
from runtime.equality import normalize_email, normalize_user_id, user_id_key
from runtime.errors import PermanentError

NEW_USER_REQUESTED: Final = "user.newUser.req"
NEW_USER_ANSWERED: Final = "user.newUser.res"

# PostgreSQL can't store NUL. It rejects lone surrogates too, but msgspec's JSON decoder never produces them.
_NO_NUL: Final = r"\A[^\x00]*\Z"


class UserRecord(msgspec.Struct, frozen=True, rename="camel"):
    """Auth's record of a user, created by the sign-up `owner_signup_id`.

    The constructor normalises `user_id` and `email`. Unknown fields are ignored. Raises ValueError (while decoding, a
    msgspec.ValidationError) if a normalised text does not fit the row.
    """

    owner_signup_id: UUID
    user_id: Annotated[str, Meta(min_length=1, max_length=USER_ID_MAX, pattern=_NO_NUL)]
    email: Annotated[str, Meta(min_length=1, max_length=EMAIL_MAX, pattern=_NO_NUL)]
    user_name: Annotated[str, Meta(max_length=USER_NAME_MAX, pattern=_NO_NUL)]
    role: Annotated[str, Meta(min_length=1, max_length=ROLE_MAX, pattern=_NO_NUL)]

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "user_id", normalize_user_id(self.user_id))
        msgspec.structs.force_setattr(self, "email", normalize_email(self.email))
        if len(self.user_id) > USER_ID_MAX or not 0 < len(self.email) <= EMAIL_MAX:
            raise ValueError("userId or email has no length that can be kept once it is normalised")

    @property
    def user_id_key(self) -> str:
        return user_id_key(self.user_id)


class NewUser(UserRecord, frozen=True):
    """A request to save this user for the sign-up `signup_id`."""

    signup_id: UUID
    services: list[str] | None = None

    def asks(self, service: str) -> bool:
        """Whether this service should answer. A request without `services` asks all of them."""
        return self.services is None or service in self.services


class NewUserAnswered(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A service's final answer to one sign-up."""

    signup_id: UUID
    user_id: str
    service: str
    status: Literal["SUCCESS", "FAIL"]
    occurred_at: datetime
    reason: str | None = None


_decoder = msgspec.json.Decoder(NewUser)
_encoder = msgspec.json.Encoder()


def decode_new_user(message: Incoming) -> NewUser:
    """Decode the request in this message. Raises the errors that eventbus.messages.decode_each catches."""
    if message.value is None:
        raise PermanentError("a request to keep a user has no value")
    return _decoder.decode(message.value)


def answer(message: Incoming, request: NewUser, verdict: Verdict, *, service: str) -> Outgoing:
    """Return the message that answers `request` with the verdict, in the trace of `message`, which carried it."""
    event = NewUserAnswered(
        signup_id=request.signup_id,
        user_id=request.user_id,
        service=service,
        status=verdict.status,
        occurred_at=datetime.now(UTC),
        reason=verdict.reason,
    )
    return Outgoing(
        topic=NEW_USER_ANSWERED,
        key=request.user_id,
        value=_encoder.encode(event),
        headers=cloud_event_headers(type=NEW_USER_ANSWERED, source=f"/{service}", traceparent=traceparent_of(message)),
    )
