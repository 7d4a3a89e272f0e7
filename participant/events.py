"""The requests to participants and their answers, which docs/asyncapi.yaml specifies: new users, changes and removals.

Every request that passes validation here can be stored by SQLite and PostgreSQL alike. So an invalid message is
rejected alone, and never fails its batch.
"""

from datetime import UTC, datetime
from typing import Annotated, Final, Literal, TypeAlias
from uuid import UUID

import msgspec
from msgspec import Meta

from eventbus.incoming_traces import traceparent_of
from eventbus.messages import Incoming, Outgoing, event_message
from participant.limits import EMAIL_MAX, ROLE_MAX, USER_ID_MAX, USER_NAME_MAX, VERSION_MAX
from participant.verdict import Holder, Judgement
from runtime.equality import normalize_email, normalize_user_id, user_id_key
from runtime.errors import PermanentError

NEW_USER_REQUESTED: Final = "user.newUser.req"
NEW_USER_ANSWERED: Final = "user.newUser.res"
CHANGE_REQUESTED: Final = "user.changeUser.req"
CHANGE_ANSWERED: Final = "user.changeUser.res"
REMOVAL_REQUESTED: Final = "user.removeUser.req"
REMOVAL_ANSWERED: Final = "user.removeUser.res"

# PostgreSQL can't store NUL. It rejects lone surrogates too, but msgspec's JSON decoder never produces them.
_NO_NUL: Final = r"\A[^\x00]*\Z"

Version = Annotated[int, Meta(ge=1, le=VERSION_MAX)]


class UserRecord(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Auth's record of an account, which the sign-up `owner_signup_id` created.

    The constructor normalises `user_id` and `email`. Unknown fields are ignored. Raises ValueError (while decoding, a
    msgspec.ValidationError) if a normalised text does not fit the row.
    """

    owner_signup_id: UUID
    user_id: Annotated[str, Meta(min_length=1, max_length=USER_ID_MAX, pattern=_NO_NUL)]
    email: Annotated[str, Meta(min_length=1, max_length=EMAIL_MAX, pattern=_NO_NUL)]
    user_name: Annotated[str, Meta(max_length=USER_NAME_MAX, pattern=_NO_NUL)]
    role: Annotated[str, Meta(min_length=1, max_length=ROLE_MAX, pattern=_NO_NUL)]
    version: Version = 1
    is_account_active: bool = msgspec.field(name="active", default=True)

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "user_id", normalize_user_id(self.user_id))
        msgspec.structs.force_setattr(self, "email", normalize_email(self.email))
        if len(self.user_id) > USER_ID_MAX or not 0 < len(self.email) <= EMAIL_MAX:
            raise ValueError("userId or email is empty or too long once it is normalised")

    @property
    def user_id_key(self) -> str:
        return user_id_key(self.user_id)


class NewUser(UserRecord, frozen=True, kw_only=True):
    """A request to save this user for the sign-up `signup_id`."""

    signup_id: UUID
    services: list[str] | None = None

    @property
    def transaction_id(self) -> UUID:
        return self.signup_id


class UserChange(UserRecord, frozen=True, kw_only=True):
    """A request to bring the account's row up to date for the change `transaction_id`."""

    transaction_id: UUID = msgspec.field(name="changeId")
    services: list[str] | None = None


class UserRemoval(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A request to remove the account for the removal `transaction_id`.

    Auth erases `user_id` when the removal is complete."""

    transaction_id: UUID = msgspec.field(name="changeId")
    owner_signup_id: UUID
    user_id: Annotated[str, Meta(max_length=USER_ID_MAX, pattern=_NO_NUL)]
    version: Version
    services: list[str] | None = None


Request: TypeAlias = NewUser | UserChange | UserRemoval


class Answered(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A service's final answer to a sign-up, or to a change or removal."""

    signup_id: UUID | None = None
    change_id: UUID | None = None
    user_id: str
    service: str
    status: Literal["SUCCESS", "FAIL"]
    occurred_at: datetime
    reason: str | None = None
    held_by: tuple[Holder, ...] = ()


_decoders: Final[dict[str, msgspec.json.Decoder[Request]]] = {
    NEW_USER_REQUESTED: msgspec.json.Decoder(NewUser),
    CHANGE_REQUESTED: msgspec.json.Decoder(UserChange),
    REMOVAL_REQUESTED: msgspec.json.Decoder(UserRemoval),
}

_ANSWERED_ON: Final[dict[type[Request], str]] = {
    NewUser: NEW_USER_ANSWERED,
    UserChange: CHANGE_ANSWERED,
    UserRemoval: REMOVAL_ANSWERED,
}

# The topics that a participant subscribes to, and those that it answers on.
REQUESTED: Final = tuple(_decoders)
ANSWERED: Final = tuple(_ANSWERED_ON.values())


def decode_request(message: Incoming) -> Request:
    """Decode the request in this message. Its topic says which kind it is. Raises the errors that
    eventbus.messages.decode_each catches."""
    if message.value is None:
        raise PermanentError("a request has no value")
    return _decoders[message.topic].decode(message.value)


def is_asked(service: str, request: Request) -> bool:
    """Whether this service should answer. A request without `services` asks all of them."""
    return request.services is None or service in request.services


def answer(message: Incoming, request: Request, judgement: Judgement, *, service: str) -> Outgoing:
    """Return the message that answers `request`, in the trace of `message`, which carried it."""
    verdict = judgement.verdict
    is_new = isinstance(request, NewUser)
    event = Answered(
        signup_id=request.transaction_id if is_new else None,
        change_id=None if is_new else request.transaction_id,
        user_id=request.user_id,
        service=service,
        status=verdict.status,
        occurred_at=datetime.now(UTC),
        reason=verdict.reason,
        held_by=judgement.held_by,
    )
    key = request.user_id or str(request.owner_signup_id)
    trace = traceparent_of(message)
    return event_message(_ANSWERED_ON[type(request)], event, key=key, source=f"/{service}", traceparent=trace)
