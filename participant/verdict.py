"""The rule by which a participant answers (docs/invariants.md, 1): pure functions, without a database."""

from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Literal, Protocol, TypeVar
from uuid import UUID


class Verdict(Enum):
    """A participant's final answer. The value is the contract's reason, or None for success."""

    KEPT = None
    DUPLICATE_USER_ID = "duplicate: userId"
    DUPLICATE_EMAIL = "duplicate: email"

    @property
    def status(self) -> Literal["SUCCESS", "FAIL"]:
        return "SUCCESS" if self is Verdict.KEPT else "FAIL"

    @property
    def reason(self) -> str | None:
        return None if self is Verdict.KEPT else str(self.value)


class Kept(Protocol):
    """The fields of a row that the rule needs: its two unique keys, and the sign-ups that it belongs to.

    A row that an administrator created has neither sign-up. A request has all four: it has the form of its future row.
    """

    @property
    def user_id_key(self) -> str: ...
    @property
    def email(self) -> str: ...
    @property
    def signup_id(self) -> UUID | None: ...
    @property
    def owner_signup_id(self) -> UUID | None: ...


Request = TypeVar("Request", bound=Kept)


def decide(requests: Sequence[Request], rows: Iterable[Kept]) -> tuple[list[Request], list[Verdict]]:
    """Return the requests that become rows, and the verdict on each request, in order.

    `rows` must include every row that holds the userId or email of a request. Each request also meets the rows of
    those before it, so a batch yields the same verdicts as its messages one by one.
    """
    by_user_id: dict[str, Kept] = {}
    by_email: dict[str, Kept] = {}
    for row in rows:
        by_user_id[row.user_id_key] = by_email[row.email] = row

    new: list[Request] = []
    verdicts: list[Verdict] = []
    for request in requests:
        same_user_id, same_email = by_user_id.get(request.user_id_key), by_email.get(request.email)
        if same_user_id is None and same_email is None:
            by_user_id[request.user_id_key] = by_email[request.email] = request
            new.append(request)
        verdicts.append(_verdict(request, same_user_id, same_email))
    return new, verdicts


def _verdict(request: Kept, same_user_id: Kept | None, same_email: Kept | None) -> Verdict:
    held = [row for row in (same_user_id, same_email) if row is not None]
    # One own row is enough: an administrator may have changed its other key since, or given that key to another row.
    if not held or any(_is_for(row, request) for row in held):
        return Verdict.KEPT
    return Verdict.DUPLICATE_EMAIL if same_user_id is None else Verdict.DUPLICATE_USER_ID


def _is_for(row: Kept, request: Kept) -> bool:
    """Whether the row was created for this sign-up, or by another sign-up for the record that this sign-up owns."""
    if row.signup_id == request.signup_id:
        return True
    return request.signup_id == request.owner_signup_id == row.owner_signup_id
