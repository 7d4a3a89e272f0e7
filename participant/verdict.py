"""A participant's final answer to a request."""

from dataclasses import dataclass
from enum import Enum
from typing import Literal
from uuid import UUID


class Verdict(Enum):
    """The answer; its value is the contract's reason, or None for success."""

    DONE = None
    DUPLICATE_USER_ID = "duplicate: userId"
    DUPLICATE_EMAIL = "duplicate: email"
    REMOVED = "removed"

    @property
    def status(self) -> Literal["SUCCESS", "FAIL"]:
        return "SUCCESS" if self is Verdict.DONE else "FAIL"

    @property
    def reason(self) -> str | None:
        return None if self is Verdict.DONE else str(self.value)


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict with the owners of the rows in the way. A row that an administrator made has no owner to name."""

    verdict: Verdict
    held_by: tuple[UUID, ...] = ()
