"""The front's model of the state of a sign-up, a change or a removal, as defined by auth's contract
(docs/openapi.yaml)."""

from typing import Final, Literal
from uuid import UUID

import msgspec

AUTH: Final = "auth"
Status = Literal["PENDING", "SUCCESS", "FAIL"]
Kind = Literal["signUp", "change", "removal"]
# Auth's terms for a sign-up that takes long; "stalled" is the worse.
Slowness = Literal["delayed", "stalled"]


class Light(msgspec.Struct, frozen=True):
    status: Status
    reason: str | None = None


class LightsState(msgspec.Struct, frozen=True, rename="camel"):
    """All lights of one event transaction: a sign-up, which has a `signup_id`, or a change or removal, which has a
    `change_id`. `took` maps each decided light to the milliseconds since the beginning. `text` is the JSON as auth
    wrote it, which is forwarded to browsers."""

    version: int
    complete: bool
    services: dict[str, Light]
    signup_id: UUID | None = None
    change_id: UUID | None = None
    kind: Kind = "signUp"
    took: dict[str, int] = {}
    stalled: bool = False
    # What the sign-up waits for before it is created: the confirmation by mail.
    awaiting: Literal["confirmation"] | None = None
    text: str = ""

    @property
    def is_answered(self) -> bool:
        """Whether auth has given its verdict, or waits for the confirmation."""
        return self._auth.status != "PENDING" or self.awaiting is not None

    @property
    def refusal(self) -> str | None:
        """Auth's reason for refusing the sign-up, or None if it did not refuse."""
        return (self._auth.reason or "") if self._auth.status == "FAIL" else None

    @property
    def is_all_green(self) -> bool:
        return all(light.status == "SUCCESS" for light in self.services.values())

    @property
    def _auth(self) -> Light:
        return self.services[AUTH]


def read_state(text: str) -> LightsState:
    """Parse a state. Raises msgspec.DecodeError, a ValueError, if the text is not a state."""
    state = msgspec.json.decode(text, type=LightsState)
    if AUTH not in state.services:
        raise msgspec.ValidationError("a state without auth's light")
    if (state.signup_id if state.kind == "signUp" else state.change_id) is None:
        raise msgspec.ValidationError("a state without an ID")
    return msgspec.structs.replace(state, text=text)
