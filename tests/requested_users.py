"""Requests to participants, as auth publishes them."""

import json
from uuid import UUID

from eventbus.messages import Incoming


def new_user_request(
    user_id: str = "kim", email: str = "", *, signup: int = 1, owner: int | None = None, **changes: object
) -> Incoming:
    """Return the request of the sign-up `signup`, which owns the record itself unless `owner` names another."""
    event = {
        "signupId": str(UUID(int=signup)),
        "ownerSignupId": str(UUID(int=signup if owner is None else owner)),
        "userId": user_id,
        "email": email or f"{user_id}@example.org",
        "userName": "Kim",
        "role": "ROLE_USER",
        "occurredAt": "2025-01-01T00:00:00Z",
        "attempt": 1,
    }
    return new_user_message(json.dumps(event | changes).encode())


def new_user_message(value: bytes | None) -> Incoming:
    """Return a message of the topic for new users, with any value."""
    return Incoming(topic="user.newUser.req", partition=0, offset=0, key=b"kim", value=value)
