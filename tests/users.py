"""Users with permissions, and the test clients in which they are logged in."""

import secrets
from typing import Any, Final

from django.contrib.auth.models import Permission
from django.test import Client

from authsvc.models import User

PASSWORD: Final = "correct horse 9"


def new_user(user_id: str, **fields: Any) -> User:
    return User.objects.create_user(user_id, f"{user_id}@example.com", PASSWORD, **fields)


def user_with(*codenames: str, user_id: str = "", is_staff: bool = True) -> User:
    """Return a new user with these permissions, by default one of the staff with a random user ID."""
    user = new_user(user_id or f"user-{secrets.token_hex(4)}", is_staff=is_staff)
    user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
    return user


def client_of(user: User | None) -> Client:
    """Return a client in which this user is logged in; None is an anonymous visitor."""
    client = Client()
    if user is not None:
        client.force_login(user)
    return client


def client_with(*codenames: str, user_id: str = "", is_staff: bool = True) -> Client:
    """Return a client in which a new user with these permissions is logged in."""
    return client_of(user_with(*codenames, user_id=user_id, is_staff=is_staff))
