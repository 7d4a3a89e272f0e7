"""What auth does with sign-ups in its database: each function is one transaction, and none calls the network."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import uniform
from typing import Any, Final
from uuid import UUID

from django.conf import settings
from django.db.models import F, Q
from django.utils import timezone

from authsvc.identity import user_id_key
from authsvc.lights import SignUpState, Status, Verdict
from authsvc.models import SignUp, UnconfirmedSignUp, User
from eventbus.rows import insert, insert_new_with, locked, overwrite
from eventbus.transactions import atomically, unless_crossed
from livesettings.values import live

AUTH = "auth"
DATABASE = "default"
# A pause is up to so many times as long as it is said to be.
JITTER: Final = 1.1
EVENT_FIELDS: Final = ("owner_signup_id", "user_id", "email", "user_name", "role")


@dataclass(frozen=True, slots=True, kw_only=True)
class NewSignUp:
    """A checked request to sign up: normalised fields, the password already hashed."""

    signup_id: UUID
    user_id: str
    email: str
    user_name: str
    role: str
    # A hash, and no part of what a log or a traceback shows.
    password: str = field(repr=False)

    def columns(self) -> dict[str, Any]:
        """The columns that SignUp and UnconfirmedSignUp have in common, but for the times."""
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
    """What became of a NewSignUp. `record` is the user that the event carries, None where `signup` was there before."""

    signup: SignUp
    state: SignUpState
    record: User | None

    @property
    def is_new(self) -> bool:
        return self.record is not None


class KeyTakenError(Exception):
    """The id of a sign-up that made a user, or of a user made otherwise, and there is no such sign-up (any more): no
    other sign-up may have it, or it would count as the one that made that user."""


def register_strangers(batch: Sequence[NewSignUp]) -> list[Registration | None]:
    """Optimistically assume every user is new: save those that conflict with nothing, with their sign-ups, and return
    None for the others and for a whole batch that another writer crossed. The caller passes these to
    register_users(). Raises django.db.OperationalError while the database is unavailable.
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


def register_users(batch: Sequence[NewSignUp]) -> list[Registration | KeyTakenError]:
    """Saves the users and their sign-ups, all in one transaction; an answer for each, in the batch's order, which is an
    error where nothing is saved.

    A userId or email that auth has already refuses the sign-up, which is saved all the same and carries the stored
    record: the one that holds the userId, else the one that holds the email. A signup_id that is there already is
    not saved again. Raises TransientError or django.db.OperationalError when the database can't now.
    """
    return atomically(lambda: register_within(batch), using=DATABASE)


def _in_order(users: Sequence[User]) -> list[User]:
    """One for every writer, so that two batches mostly wait for each other rather than deadlock."""
    return sorted(users, key=lambda user: user.user_id_key)


def _are_distinct(users: Sequence[User]) -> bool:
    """Whether no two of them are the same to the database."""
    return all(
        len({getattr(user, name) for user in users}) == len(users)
        for name in ("owner_signup_id", "user_id_key", "email")
    )


def register_within(batch: Sequence[NewSignUp]) -> list[Registration | KeyTakenError]:
    """register_users() inside the caller's transaction, which is to be run again where another writer crosses it."""
    now = timezone.now()
    keys = {new: user_id_key(new.user_id) for new in batch}
    held = User.objects.filter(
        Q(user_id_key__in=set(keys.values()))
        | Q(email__in={new.email for new in batch})
        | Q(owner_signup_id__in={new.signup_id for new in batch})
    )
    by_user_id, by_email, owners = {}, {}, set()
    for user in held:
        by_user_id[user.user_id_key] = by_email[user.email] = user
        owners.add(user.owner_signup_id)
    # After the users: another instance may commit the same sign-up between the two queries. In the other order its user
    # would be found without it, and a retry refused.
    signups = SignUp.objects.in_bulk([new.signup_id for new in batch])

    new_users: list[User] = []
    registrations: list[Registration | KeyTakenError] = []
    for new in batch:
        if earlier := signups.get(new.signup_id):
            registrations.append(Registration(earlier, earlier.state, None))
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
    saved = [each.signup for each in registrations if isinstance(each, Registration) and each.is_new]
    insert(saved, using=DATABASE)
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
        next_due_at=now + pause_after(1),
    )
    begun = SignUpState.all_pending(new.signup_id, started_at=now, services=settings.SIGNUP_SERVICES)
    state = begun.decided([verdict], at=now)
    signup.take(state, at=now)
    return Registration(signup, state, record)


def pause_after(attempt: int) -> timedelta:
    """How long to wait for the answers to the n-th try: doubling, with a tenth of jitter."""
    seconds = min(live.RELAY_FIRST_PAUSE * 2 ** min(attempt - 1, 16), live.RELAY_MAX_PAUSE)
    return timedelta(seconds=seconds * uniform(1, JITTER))  # noqa: S311 - jitter, not a secret


def longest_pause() -> timedelta:
    """No sign-up is made due later than this."""
    return timedelta(seconds=live.RELAY_MAX_PAUSE * JITTER)


@dataclass(frozen=True, slots=True)
class ReportedVerdict:
    """A participant's answer to one sign-up."""

    signup_id: UUID
    verdict: Verdict


def apply_verdicts(reports: Sequence[ReportedVerdict]) -> dict[UUID, SignUpState]:
    """Turns the lights that these verdicts decide. Returns the present state of every sign-up that is known,
    changed or not, so that the caller writes the projection of a repeated answer again."""
    return atomically(lambda: _apply(reports), using=DATABASE)


def _apply(reports: Sequence[ReportedVerdict]) -> dict[UUID, SignUpState]:
    now = timezone.now()
    verdicts: dict[UUID, list[Verdict]] = {}
    for report in reports:
        verdicts.setdefault(report.signup_id, []).append(report.verdict)
    # Locked in one order, so that two consumers wait for each other rather than deadlock.
    signups = locked(SignUp, list(verdicts), using=DATABASE)
    states: dict[UUID, SignUpState] = {}
    changed: list[SignUp] = []
    for signup in signups:
        before = signup.state
        after = before.decided((v for v in verdicts[signup.id] if v.service in before.lights), at=now)
        states[signup.id] = after
        if after is not before:
            signup.take(after, at=now)
            changed.append(signup)
    overwrite(changed, fields=SignUp.STATE_FIELDS, using=DATABASE)
    return states


def read_states(signup_ids: Sequence[UUID]) -> dict[UUID, SignUpState]:
    """The present states of those sign-ups that exist, unconfirmed ones too."""
    states = _read_signups(signup_ids)
    if unknown := [signup_id for signup_id in signup_ids if signup_id not in states]:
        states |= {row.id: row.state for row in UnconfirmedSignUp.objects.filter(id__in=unknown)}
        # One that was confirmed between these two readings is in neither of them.
        states |= _read_signups([signup_id for signup_id in unknown if signup_id not in states])
    return states


def _read_signups(signup_ids: Sequence[UUID]) -> dict[UUID, SignUpState]:
    signups = SignUp.objects.only("id", "created_at", "version", "lights", "stalled_at").in_bulk(list(signup_ids))
    return {signup_id: signup.state for signup_id, signup in signups.items()}


@dataclass(frozen=True, slots=True)
class DueEvent:
    """An event to publish again: auth's present record, and the services that have not answered."""

    signup_id: UUID
    record: User
    attempt: int
    services: list[str]


def claim_due(*, limit: int) -> list[DueEvent]:
    """Claims at most `limit` sign-ups whose event is due, for this caller alone, and makes them due later.

    One that has had all its tries, or whose record is gone, is stalled instead: visible, no longer due, and taken
    up by a replay.
    """
    return atomically(lambda: _claim(limit), using=DATABASE)


def _claim(limit: int) -> list[DueEvent]:
    now = timezone.now()
    waiting = SignUp.objects.select_for_update(skip_locked=True).order_by("next_due_at")
    due = list(waiting.filter(next_due_at__lte=now)[:limit])
    # Further ahead than any pause: the clock that said so has been put back since (docs/adr/0017).
    due += waiting.filter(next_due_at__gt=now + longest_pause())[: limit - len(due)]
    records = records_of({signup.owner_signup_id for signup in due})
    events = []
    for signup in due:
        record = records.get(signup.owner_signup_id)
        if record is None or signup.attempts >= live.RELAY_MAX_ATTEMPTS:
            signup.stalled_at, signup.next_due_at = now, None
            continue
        signup.attempts += 1
        signup.next_due_at = now + pause_after(signup.attempts)
        events.append(DueEvent(signup.id, record, signup.attempts, signup.state.pending))
    overwrite(due, fields=["attempts", "next_due_at", "stalled_at"], using=DATABASE)
    return events


def give_back_tries(signup_ids: Sequence[UUID]) -> None:
    """Uncounts the last try of these sign-ups, which went nowhere. They stay due when they are."""
    atomically(
        lambda: SignUp.objects.filter(id__in=signup_ids, attempts__gt=1).update(attempts=F("attempts") - 1),
        using=DATABASE,
    )


def ask_again(signup_ids: Collection[UUID]) -> None:
    """Gives those that are incomplete all their tries again."""
    atomically(lambda: _ask_again(signup_ids), using=DATABASE)


def _ask_again(signup_ids: Collection[UUID]) -> None:
    incomplete = SignUp.objects.filter(id__in=signup_ids, pending_count__gt=0)
    incomplete.update(attempts=1, next_due_at=timezone.now() + pause_after(1), stalled_at=None)


def ask_also(signup_ids: Sequence[UUID], *, service: str) -> list[SignUpState]:
    """Gives those that never asked `service` its light, pending, and all their tries again: so a service that was added
    later is filled with the users that were there before. Returns the states of those."""
    return atomically(lambda: _ask_also(signup_ids, service), using=DATABASE)


def _ask_also(signup_ids: Sequence[UUID], service: str) -> list[SignUpState]:
    now = timezone.now()
    lacking = SignUp.objects.filter(id__in=signup_ids).exclude(lights__has_key=service)
    signups = list(lacking.select_for_update().order_by("id"))
    for signup in signups:
        signup.take(signup.state.asking(service), at=now)
        signup.attempts, signup.next_due_at, signup.stalled_at = 1, now + pause_after(1), None
    overwrite(signups, fields=[*SignUp.STATE_FIELDS, "attempts"], using=DATABASE)
    return [signup.state for signup in signups]


def count_incomplete() -> dict[str, int]:
    """How many sign-ups wait for a verdict: `waiting` were asked lately, `due` are to be asked again now, `stalled` are
    asked no more. Each is counted in an index of its own few rows."""
    now = timezone.now()
    return {
        "waiting": SignUp.objects.filter(next_due_at__gt=now).count(),
        "due": SignUp.objects.filter(next_due_at__lte=now).count(),
        "stalled": SignUp.objects.filter(stalled_at__isnull=False).count(),
    }


def records_of(owners: Collection[UUID]) -> dict[UUID, User]:
    """Auth's present records that these sign-ups made, by sign-up; with the fields that an event carries."""
    users = User.objects.filter(owner_signup_id__in=owners)
    return {user.owner_signup_id: user for user in users.only(*EVENT_FIELDS)}
