"""Call a participant's own function with users that are new to it, after their rows have been stored."""

from collections.abc import Callable, Collection
from typing import Any
from uuid import UUID

from django.db import IntegrityError

from participant.models import ParticipantUser

# A participant's function for new users, which gets a QuerySet of their rows. It runs in the transaction that inserts
# them, so either everything is saved or nothing is, however often the request is delivered. The transaction may be
# repeated after a conflict, so the function may write only to the service's own database; an effect elsewhere belongs
# into transaction.on_commit.
OnNewUsers = Callable[[Any], None]


class NewUsersError(Exception):
    """A participant's function for new users violates a constraint of its database."""


def call_on_new_users(
    model: type[ParticipantUser], owners: Collection[UUID | None], on_new_users: OnNewUsers | None
) -> None:
    """Call `on_new_users` with the rows of these owners, which were inserted in this transaction."""
    if on_new_users is None or not owners:
        return
    try:
        on_new_users(model.objects.filter(owner_signup_id__in=owners))
    except IntegrityError as error:
        # Left as it is, it would look like a conflict with another writer, and the batch would be repeated for ever.
        raise NewUsersError(f"{error}") from error
