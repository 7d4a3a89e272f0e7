"""Requests to keep a user, as tests write them: sign-ups are numbers."""

from uuid import UUID

from participant.events import NewUser


def request(
    user_id: str = "kim", email: str = "kim@example.org", *, signup: int = 1, owner: int | None = None
) -> NewUser:
    """A request for the sign-up `signup`, which owns the record itself unless `owner` says who does."""
    return NewUser(
        signup_id=UUID(int=signup),
        owner_signup_id=UUID(int=signup if owner is None else owner),
        user_id=user_id,
        email=email,
        user_name="Kim",
        role="ROLE_USER",
    )
