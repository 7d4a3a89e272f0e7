"""A participant's final answer to a request."""

from dataclasses import dataclass
from enum import Enum
from typing import Literal
from uuid import UUID

import msgspec


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


class Holder(msgspec.Struct, frozen=True, rename="camel"):
    """An account whose row is in the way, and the row's version."""

    owner_signup_id: UUID
    version: int


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict, and the accounts in the way. A row that an administrator made belongs to no account."""

    verdict: Verdict
    held_by: tuple[Holder, ...] = ()
