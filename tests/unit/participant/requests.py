"""Requests to a participant, as tests write them: sign-ups, changes and owners are numbers."""

from uuid import UUID

from participant.events import NewUser, UserChange, UserRemoval


def request(
    user_id: str = "kim", email: str = "kim@example.org", *, signup: int = 1, owner: int | None = None, version: int = 1
) -> NewUser:
    """A request for the sign-up `signup`, which owns the record itself unless `owner` names another sign-up."""
    return NewUser(
        signup_id=UUID(int=signup),
        owner_signup_id=UUID(int=signup if owner is None else owner),
        user_id=user_id,
        email=email,
        user_name="Kim",
        role="ROLE_USER",
        version=version,
    )


def change(
    user_id: str = "kim", email: str = "kim@example.org", *, owner: int = 1, version: int = 2, is_active: bool = True
) -> UserChange:
    return UserChange(
        transaction_id=UUID(int=100 + version),
        owner_signup_id=UUID(int=owner),
        user_id=user_id,
        email=email,
        user_name="Kim",
        role="ROLE_USER",
        version=version,
        is_account_active=is_active,
    )


def removal(owner: int = 1, *, version: int = 9) -> UserRemoval:
    return UserRemoval(transaction_id=UUID(int=200), owner_signup_id=UUID(int=owner), user_id="", version=version)
