"""Register users. Each public function is one transaction on auth's database; none makes a network call."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models import Q
from django.db.models.signals import post_save
from django.dispatch import receiver
from django.utils import timezone

from authsvc.lights import AUTH, Kind, Status, TransactionState, Verdict
from authsvc.models import DATABASE, SignUp, UnconfirmedSignUp, User
from authsvc.signups.outbox import wait_for_answers_after
from authsvc.signups.transaction_counts import count_begun
from runtime.database.bulk_sql import insert, insert_new_with, kept_from_deletion
from runtime.database.transactions import atomically, unless_crossed
from runtime.equality import user_id_key


@dataclass(frozen=True, slots=True, kw_only=True)
class NewSignUp:
    """A checked request to sign up: normalised fields, the password already hashed."""

    signup_id: UUID
    user_id: str
    email: str
    user_name: str
    role: str
    # The hash, kept out of logs and tracebacks.
    password: str = field(repr=False)
    # Whether a client may send the same request again and join this sign-up. Otherwise the sign-up keeps no hash, and
    # it is not saved if auth refuses it: nobody waits for its lights.
    may_be_repeated: bool = True

    @classmethod
    def of(cls, signup_id: UUID, row: User | UnconfirmedSignUp, *, may_be_repeated: bool) -> "NewSignUp":
        """Return a sign-up with the values of a row."""
        values = {name: getattr(row, name) for name in ("user_id", "email", "user_name", "role", "password")}
        return cls(signup_id=signup_id, may_be_repeated=may_be_repeated, **values)

    def columns(self) -> dict[str, Any]:
        """The columns that SignUp and UnconfirmedSignUp share, except timestamps."""
        return {
            "id": self.signup_id,
            "user_id": self.user_id,
            "user_id_key": user_id_key(self.user_id),
            "email": self.email,
            "user_name": self.user_name,
            "role": self.role,
            "password": self.password,
        }


@dataclass(frozen=True, slots=True)
class Registration:
    """The outcome of a NewSignUp. `record` is the user that the event carries, or None if `signup` existed already."""

    signup: SignUp
    state: TransactionState
    record: User | None

    @property
    def is_new(self) -> bool:
        return self.record is not None


class KeyTakenError(Exception):
    """The sign-up ID is already the owner ID of an existing user, but no such sign-up exists (any more): reusing the ID
    would make the new sign-up look like the one that created that user. Or it is the ID of a change or a removal, whose
    lights the new sign-up's ticket would show."""


def register_new_users(batch: Sequence[NewSignUp]) -> list[Registration | None]:
    """Optimistically assume every user is new: insert those that conflict with nothing, with their sign-ups. Return
    None for the rest, or for the whole batch after a conflict with a concurrent writer; the caller passes those to
    register_users(). Raise django.db.OperationalError while the database is unavailable.
    """
    users = [_new_user(new) for new in batch]
    if not _are_distinct(users):
        return [None] * len(batch)
    now = timezone.now()
    registrations = [
        _new_registration(new, user, Verdict(AUTH, Status.SUCCESS), now) for new, user in zip(batch, users, strict=True)
    ]
    signups = [each.signup for each in registrations]
    nobody: list[User] = []
    saved = unless_crossed(
        lambda: insert_new_with(_in_order(users), signups, key="owner_signup_id", using=DATABASE),
        otherwise=nobody,
        using=DATABASE,
    )
    taken = {user.owner_signup_id for user in saved}
    return [each if each.signup.id in taken else None for each in registrations]


@atomically(DATABASE)
def register_users(batch: Sequence[NewSignUp]) -> list[Registration | KeyTakenError]:
    """Save the users and their sign-ups in one transaction. Return one outcome per sign-up, in the batch's order; a
    KeyTakenError means that nothing was saved for it.

    A sign-up whose userId or email is taken is refused, but still saved; its registration carries the existing user
    (the holder of the userId, else of the email). A sign-up whose ID exists already is not saved again. Raise
    TransientError or django.db.OperationalError while the database is unavailable.
    """
    return register_within(batch)


@atomically(DATABASE)
def foresee_users(batch: Sequence[NewSignUp]) -> list[Registration | KeyTakenError]:
    """Dry run: return the outcomes of register_users() without saving anything."""
    outcomes = register_within(batch)
    transaction.set_rollback(True, using=DATABASE)
    return outcomes


@receiver(post_save, sender=User)
def register_added(sender: Any, *, instance: User, created: bool, raw: bool, **kwargs: Any) -> None:
    """Give a user whom an administrator or a command adds a sign-up, in the transaction that saves the user.

    It is due at once, so the relay publishes its event within a second: pages and commands need no connection to Kafka.
    After the commit, it is counted like any other sign-up.
    """
    if not created or raw:
        return
    now = timezone.now()
    new = NewSignUp.of(instance.owner_signup_id, instance, may_be_repeated=False)
    signup = _new_registration(new, instance, Verdict(AUTH, Status.SUCCESS), now).signup
    if signup.completed_at is None:
        signup.attempts, signup.next_due_at = 0, now
    insert([signup], using=DATABASE)
    transaction.on_commit(lambda: count_begun([signup.state]), using=DATABASE)


def _in_order(users: Sequence[User]) -> list[User]:
    """Sort in the order that every writer uses, so that concurrent batches usually wait instead of deadlocking."""
    return sorted(users, key=lambda user: user.user_id_key)


def _are_distinct(users: Sequence[User]) -> bool:
    """Whether no two of the users violate a unique constraint."""
    return all(
        len({getattr(user, name) for user in users}) == len(users)
        for name in ("owner_signup_id", "user_id_key", "email")
    )


def register_within(batch: Sequence[NewSignUp]) -> list[Registration | KeyTakenError]:
    """Like register_users(), in the caller's transaction, which the caller retries after a conflict with a writer."""
    now = timezone.now()
    keys = {new: user_id_key(new.user_id) for new in batch}
    held = User.objects.filter(
        Q(user_id_key__in=set(keys.values()))
        | Q(email__in={new.email for new in batch})
        | Q(owner_signup_id__in={new.signup_id for new in batch})
    )
    by_user_id, by_email, owners = {}, {}, set()
    # A removal that begins now waits for this transaction, and then erases the sign-ups that collided with the account.
    for user in kept_from_deletion(held, using=DATABASE):
        by_user_id[user.user_id_key] = by_email[user.email] = user
        owners.add(user.owner_signup_id)
    # Query sign-ups after users: another instance may commit the same sign-up between the two queries. In the opposite
    # order we would find its user but not the sign-up, and refuse a legitimate retry.
    # The base manager also finds changes and removals, because a client may choose any ID.
    signups = SignUp._base_manager.in_bulk([new.signup_id for new in batch])

    new_users: list[User] = []
    registrations: list[Registration | KeyTakenError] = []
    for new in batch:
        if earlier := signups.get(new.signup_id):
            is_signup = earlier.kind == Kind.SIGNUP
            registrations.append(Registration(earlier, earlier.state, None) if is_signup else KeyTakenError())
            continue
        if new.signup_id in owners:
            registrations.append(KeyTakenError())
            continue
        key = keys[new]
        if record := by_user_id.get(key):
            verdict = Verdict(AUTH, Status.FAIL, "duplicate: userId")
        elif record := by_email.get(new.email):
            verdict = Verdict(AUTH, Status.FAIL, "duplicate: email")
        else:
            verdict = Verdict(AUTH, Status.SUCCESS)
            record = _new_user(new)
            new_users.append(record)
            by_user_id[key] = by_email[new.email] = record
        registration = _new_registration(new, record, verdict, now)
        signups[new.signup_id] = registration.signup
        registrations.append(registration)
    insert(_in_order(new_users), using=DATABASE)
    insert(
        [
            each.signup
            for new, each in zip(batch, registrations, strict=True)
            if isinstance(each, Registration) and each.is_new and (each.signup.is_owner or new.may_be_repeated)
        ],
        using=DATABASE,
    )
    return registrations


def _new_user(new: NewSignUp) -> User:
    user = User(
        user_id=new.user_id,
        email=new.email,
        user_name=new.user_name,
        role=new.role,
        owner_signup_id=new.signup_id,
        password=new.password,
    )
    user.normalize()
    return user


def _new_registration(new: NewSignUp, record: User, verdict: Verdict, now: datetime) -> Registration:
    signup = SignUp(
        **new.columns(),
        owner_signup_id=record.owner_signup_id,
        created_at=now,
        attempts=1,
        next_due_at=now + wait_for_answers_after(1),
    )
    begun = TransactionState.all_pending(new.signup_id, started_at=now, services=settings.SIGNUP_SERVICES)
    state = begun.decided([verdict], at=now)
    signup.take(state, at=now)
    if not new.may_be_repeated:
        signup.password = ""
    return Registration(signup, state, record)
