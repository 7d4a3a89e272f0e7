"""The steps of a timeline."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from authsvc.lights import Status

StepKind = Literal["auth", "asked", "answered", "light", "letter", "action", "end", "due"]


@dataclass(frozen=True, slots=True)
class Step:
    """One event of a timeline. `place` is its message's position in Kafka, `letter_id` the id of its dead letter."""

    at: datetime
    kind: StepKind
    what: str
    place: str = ""
    detail: str = ""
    status: Status | None = None
    letter_id: int | None = None

    @property
    def milliseconds(self) -> str:
        return f"{self.at.microsecond // 1000:03}"
