"""The front's own reading of a sign-up's state, as auth's contract spells it."""

from typing import Final, Literal
from uuid import UUID

import msgspec

AUTH: Final = "auth"
Status = Literal["PENDING", "SUCCESS", "FAIL"]
# How auth calls a sign-up that takes long; the second is the worse.
Slowness = Literal["delayed", "stalled"]


class Light(msgspec.Struct, frozen=True):
    status: Status
    reason: str | None = None


class State(msgspec.Struct, frozen=True, rename="camel"):
    """All lights of one sign-up. `took` has the milliseconds from its beginning to each light that is decided. `text`
    is the JSON that it was read from: browsers get it as auth wrote it."""

    signup_id: UUID
    version: int
    complete: bool
    services: dict[str, Light]
    took: dict[str, int] = {}
    stalled: bool = False
    # What the sign-up waits for before any service is asked: the person's confirmation, by mail.
    awaiting: Literal["confirmation"] | None = None
    text: str = ""

    @property
    def is_answered(self) -> bool:
        """Whether auth has said what there is to say for now: its own verdict, or that it waits for the person."""
        return self._auth.status != "PENDING" or self.awaiting is not None

    @property
    def refusal(self) -> str | None:
        """Why auth refused the sign-up, None where it did not."""
        return (self._auth.reason or "") if self._auth.status == "FAIL" else None

    @property
    def is_all_green(self) -> bool:
        return all(light.status == "SUCCESS" for light in self.services.values())

    @property
    def _auth(self) -> Light:
        return self.services[AUTH]


def read_state(text: str) -> State:
    """Raises msgspec.DecodeError, a ValueError, for what is no state."""
    state = msgspec.json.decode(text, type=State)
    if AUTH not in state.services:
        raise msgspec.ValidationError("a state without auth's light")
    return msgspec.structs.replace(state, text=text)
