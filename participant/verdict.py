"""A participant's final answer to a request."""

from dataclasses import dataclass
from enum import Enum
from typing import Final, Literal
from uuid import UUID

import msgspec


class VerdictCode(Enum):
    """The possible verdicts. Each has the contract's reason as its value, or None for success."""

    DONE = None
    DUPLICATE_USER_ID = "duplicate: userId"
    DUPLICATE_EMAIL = "duplicate: email"
    REMOVED = "removed"

    @property
    def status(self) -> Literal["SUCCESS", "FAIL"]:
        return "SUCCESS" if self is VerdictCode.DONE else "FAIL"

    @property
    def reason(self) -> str | None:
        return None if self is VerdictCode.DONE else str(self.value)


class Holder(msgspec.Struct, frozen=True, rename="camel"):
    """An account whose row is in the way, and the row's version."""

    owner_signup_id: UUID
    version: int


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict, and the accounts in the way. A row that an administrator made belongs to no account."""

    verdict: VerdictCode
    held_by: tuple[Holder, ...] = ()


DONE: Final = Judgement(VerdictCode.DONE)
REMOVED: Final = Judgement(VerdictCode.REMOVED)
