"""Change and remove accounts.

Each function is one transaction on auth's database, and creates an event transaction that reaches every service in the
same way as a sign-up (docs/adr/0057).
"""

from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from django.conf import settings
from django.contrib.admin.models import LogEntry
from django.contrib.contenttypes.models import ContentType
from django.db import IntegrityError, transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from authsvc.lights import AUTH, Kind, Status, TransactionState, Verdict
from authsvc.models import (
    DATABASE,
    EventTransaction,
    NoSuchAccountError,
    RemovedAccount,
    User,
    address_replaced,
    new_signup_id,
)
from authsvc.signups.events import requested
from authsvc.signups.outbox import wait_for_answers_after
from authsvc.signups.projection import projection
from authsvc.signups.publisher import publish
from authsvc.signups.transaction_counts import count_begun
from runtime.database.bulk_sql import overwrite
from runtime.database.transactions import atomically

# Event transactions that a removal reads or names in one statement.
PAGE: Final = 1000


class OutdatedError(Exception):
    """The account has been changed since the caller read it. Reading it again and repeating the change may help."""


def change_account(user: User, *, expected_version: int | None = None) -> EventTransaction | None:
    """Save the user, whose attributes have the new values. Return the event transaction that tells the services, or
    None if no field changed that they have a copy of.

    Raise OutdatedError if the account's version is no longer `expected_version` (by default that of `user`),
    NoSuchAccountError if it was removed, and django.db.IntegrityError if another account has the userId or address.
    """
    expected = user.version if expected_version is None else expected_version
    with transaction.atomic(using=DATABASE):
        stored = _locked(user)
        if stored.version != expected:
            raise OutdatedError
        user.normalize()
        changed = [wire for name, wire in User.SYNCHRONISED.items() if getattr(user, name) != getattr(stored, name)]
        if not changed:
            user.save()
            return None
        user.version = stored.version + 1
        try:
            user.save(is_change=True)
        except IntegrityError:
            user.version = stored.version
            raise
        if "email" in changed:
            address_replaced.send(User, user=user, former=stored.email)
        return _begin_change(user, changed)


def publish_again(user: User, *, above: int) -> EventTransaction | None:
    """Give the account's record a version higher than `above`, so that every service replaces its copy by the record.
    Return the change that tells them, or None if the version is high enough already.

    Raise NoSuchAccountError if the account was removed.
    """
    with transaction.atomic(using=DATABASE):
        stored = _locked(user)
        if stored.version > above:
            return None
        stored.version = above + 1
        stored.save(is_change=True)
        return _begin_change(stored, ())


def _begin_change(user: User, changed: Sequence[str]) -> EventTransaction:
    """Save the event transaction of a change in these fields, and publish it after the commit."""
    row = _begun(Kind.CHANGE, user, at=timezone.now())
    row.email, row.user_name, row.role = user.email, user.user_name, user.role
    row.changed_fields = " ".join(changed)
    row.save(force_insert=True)
    transaction.on_commit(lambda: _tell_of_change(row, user), using=DATABASE)
    return row


@atomically(DATABASE)
def remove_account(user: User, *, only_if: Callable[[User], bool] | None = None) -> EventTransaction:
    """Delete the user for good. Return the event transaction that makes every service delete its copy.

    The userId and address are free at once. Nothing brings the account back: its tombstone remains. The account's
    earlier event transactions end, and lose all personal data, and so do the admin's log entries about it. Raise
    NoSuchAccountError if it was removed already, or if `only_if` is false of the account as it is stored now.
    """
    stored = _locked(user)
    if only_if is not None and not only_if(stored):
        raise NoSuchAccountError
    now = timezone.now()
    stored.version += 1
    RemovedAccount.objects.create(owner_signup_id=stored.owner_signup_id, version=stored.version, removed_at=now)
    # Lock all of them in the order that consumers use, so that the two wait for each other instead of deadlocking.
    earlier = list(_earlier_of(stored).select_for_update().order_by("id").values_list("id", flat=True))
    user_ids = _own_user_ids(stored)
    ended = _end_earlier(stored, at=now)
    row = _begun(Kind.REMOVAL, stored, at=now)
    row.role = stored.role
    if row.completed_at is not None:
        # There are no participants whose answers would complete it.
        row.user_id = row.user_id_key = ""
    row.save(force_insert=True)
    _keep_id_taken(stored, earlier, at=now)
    _erase_log_entries(stored, user_ids, earlier)
    stored.delete()
    transaction.on_commit(lambda: _tell_of_removal(row, ended, earlier), using=DATABASE)
    return row


def _locked(user: User) -> User:
    stored = User.objects.select_for_update().filter(pk=user.pk).first()
    if stored is None:
        raise NoSuchAccountError
    return stored


def _begun(kind: Kind, user: User, *, at: datetime) -> EventTransaction:
    row = EventTransaction(
        id=new_signup_id(),
        kind=kind.value,
        owner_signup_id=user.owner_signup_id,
        record_version=user.version,
        user_id=user.user_id,
        user_id_key=user.user_id_key,
        created_at=at,
        next_due_at=at + wait_for_answers_after(1),
    )
    begun = TransactionState.all_pending(row.id, started_at=at, services=settings.SIGNUP_SERVICES, kind=kind)
    row.take(begun.decided([Verdict(AUTH, Status.SUCCESS)], at=at), at=at)
    return row


def _earlier_of(user: User) -> QuerySet[EventTransaction]:
    """The account's event transactions, including the sign-ups of strangers that auth refused because of it. Of these
    there may be any number, so a removal never reads all of them at once."""
    return EventTransaction.objects.filter(owner_signup_id=user.owner_signup_id)


def _own_user_ids(user: User) -> set[str]:
    """Return the user IDs that the account has had."""
    own = _earlier_of(user).filter(~Q(kind=Kind.SIGNUP) | Q(id=user.owner_signup_id))
    return {user.user_id, *own.values_list("user_id", flat=True)}


def _end_earlier(user: User, *, at: datetime) -> list[TransactionState]:
    """End the account's other event transactions, which are locked, and erase their personal data. Return the states
    that changed."""
    ended = []
    pending = _earlier_of(user).filter(pending_count__gt=0).order_by("id")
    while page := list(pending[:PAGE]):
        for row in page:
            row.take(row.state.superseded(at=at), at=at)
            ended.append(row.state)
        overwrite(page, fields=EventTransaction.STATE_FIELDS, using=DATABASE)
    _earlier_of(user).update(user_id="", user_id_key="", email="", user_name="", password="")
    return ended


def _keep_id_taken(user: User, transaction_ids: Collection[UUID], *, at: datetime) -> None:
    """Restore the account's own sign-up, without personal data, if it has been purged. As long as it exists, nobody can
    sign up with its ID, which the services would take for the removed account's."""
    if user.owner_signup_id not in transaction_ids:
        signup = EventTransaction(
            id=user.owner_signup_id, owner_signup_id=user.owner_signup_id, created_at=user.date_joined
        )
        begun = TransactionState.all_pending(signup.id, started_at=at, services=[AUTH])
        signup.take(begun.decided([Verdict(AUTH, Status.SUCCESS)], at=at), at=at)
        signup.save(force_insert=True)


def _erase_log_entries(user: User, user_ids: Collection[str], transaction_ids: Sequence[UUID]) -> None:
    """Replace the user IDs in the admin's log entries about the account and its transactions by the account's ID."""
    kinds = ContentType.objects.db_manager(DATABASE)
    about_user = Q(content_type=kinds.get_for_model(User), object_id=str(user.pk))
    # Participants' rows had the same user IDs; another account may now use a former one.
    others = User.objects.filter(user_id__in=user_ids).exclude(pk=user.pk).values_list("user_id", flat=True)
    about_user |= Q(object_repr__in={*user_ids} - {*others})
    entries = LogEntry.objects.using(DATABASE)
    entries.filter(about_user).update(object_repr=str(user.owner_signup_id))
    about_rows = entries.filter(content_type=kinds.get_for_model(EventTransaction))
    for start in range(0, len(transaction_ids), PAGE):
        ids = [str(each) for each in transaction_ids[start : start + PAGE]]
        about_rows.filter(object_id__in=ids).update(object_repr=str(user.owner_signup_id))


def _tell_of_change(row: EventTransaction, user: User) -> None:
    count_begun([row.state])
    publish([requested(row, user, attempt=1)])


def _tell_of_removal(row: EventTransaction, ended: Sequence[TransactionState], earlier: Sequence[UUID]) -> None:
    count_begun([row.state], ended=ended, since=row.created_at)
    projection().forget(earlier)
    publish([requested(row, None, attempt=1)])
