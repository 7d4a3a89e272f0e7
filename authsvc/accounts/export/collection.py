"""Collect everything that all services hold about an account.

Auth never reads another service's tables: it asks through Kafka and waits for the answers (docs/asyncapi.yaml).
"""

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import msgspec
from django.db.models import Q
from django.utils import timezone
from uuid_utils.compat import uuid7

from authsvc.accounts.two_factor.devices import second_factor_of
from authsvc.lights import AUTH, Kind, participants
from authsvc.models import EventTransaction, User
from authsvc.signups.publisher import publish
from eventbus.messages import Outgoing, decode_each, decoder_of, event_message
from eventbus.replies import Replies
from runtime.mail_addresses import shown_address

EXPORT_REQUESTED: Final = "user.export.req"
EXPORT_ANSWERED: Final = "user.export.res"
# Seconds for which the services may answer.
ANSWERED_WITHIN: Final = 5.0
# Seconds for which one read may wait; the services answer at nearly the same time.
POLL: Final = 0.2
# Collections at once in this process. Each holds a thread and a Kafka client for seconds.
AT_ONCE: Final = 2
_running: Final = threading.BoundedSemaphore(AT_ONCE)
# The owners of the accounts whose data this process is collecting.
_owners: Final[set[UUID]] = set()
_choosing: Final = threading.Lock()

ExportedValue = str | int | float | bool | None
ExportedRecord = Mapping[str, ExportedValue]


class BusyError(Exception):
    """Other exports are running. Try again in a moment."""


class AlreadyCollectingError(Exception):
    """The data of this account is being collected for another request."""


class ExportRequested(msgspec.Struct, frozen=True, rename="camel"):
    export_id: UUID
    owner_signup_id: UUID
    services: list[str]
    occurred_at: datetime
    expires_at: datetime


class ExportAnswered(msgspec.Struct, frozen=True, rename="camel"):
    """A service's answer with all that it holds about the account. Unknown fields are ignored."""

    export_id: UUID
    service: str
    records: list[dict[str, ExportedValue]]


@dataclass(frozen=True, slots=True)
class Export:
    """The records by service, and the services that did not answer in time."""

    records: Mapping[str, Sequence[ExportedRecord]]
    silent: Sequence[str]


_decode = decoder_of(ExportAnswered)


def collect(user: User) -> Export:
    """Return what auth and all participants hold. Takes up to ANSWERED_WITHIN seconds and a little more.

    Raise AlreadyCollectingError, BusyError, and a transient KafkaException while Kafka does not answer.
    """
    with _place_for(user.owner_signup_id):
        records: dict[str, Sequence[ExportedRecord]] = {AUTH: list(_own_records(user))}
        records |= _ask(user.owner_signup_id, participants())
    return Export(records, [service for service in participants() if service not in records])


@contextmanager
def _place_for(owner: UUID) -> Iterator[None]:
    """Acquire an export slot of this process; one per account, so that no user starves the others."""
    with _choosing:
        if owner in _owners:
            raise AlreadyCollectingError
        if not _running.acquire(blocking=False):
            raise BusyError
        _owners.add(owner)
    try:
        yield
    finally:
        with _choosing:
            _owners.remove(owner)
            _running.release()


def _ask(owner: UUID, services: Sequence[str]) -> dict[str, Sequence[ExportedRecord]]:
    answers: dict[str, Sequence[ExportedRecord]] = {}
    if not services:
        return answers
    with Replies(EXPORT_ANSWERED) as replies:
        now = timezone.now()
        export_id = uuid7()
        request = ExportRequested(export_id, owner, list(services), now, now + timedelta(seconds=ANSWERED_WITHIN))
        publish([_message(request)])
        deadline = time.monotonic() + ANSWERED_WITHIN
        while len(answers) < len(services) and time.monotonic() < deadline:
            decoded, _unreadable = decode_each(replies.read(POLL), _decode, most=1024 * 1024)
            for _, answer in decoded:
                if answer.export_id == export_id and answer.service in services:
                    answers[answer.service] = answer.records
    return answers


def _message(request: ExportRequested) -> Outgoing:
    return event_message(EXPORT_REQUESTED, request, key=str(request.export_id), source="/auth")


def _own_records(user: User) -> Iterator[ExportedRecord]:
    yield {
        "userId": user.user_id,
        "userName": user.user_name,
        "email": shown_address(user.email),
        "role": user.role,
        "active": user.is_active,
        "staff": user.is_staff,
        "joined": _iso(user.date_joined),
        "lastLogin": _iso(user.last_login),
        "hasPassword": user.has_usable_password(),
        "hasSecondFactor": second_factor_of(user) is not None,
        "closes": _iso(user.closes_at),
        "ownerSignupId": str(user.owner_signup_id),
        "version": user.version,
    }
    # Another person's attempt to sign up with this account's user ID is that person's data.
    own = Q(id=user.owner_signup_id) | ~Q(kind=Kind.SIGNUP)
    for row in EventTransaction.objects.filter(own, owner_signup_id=user.owner_signup_id).order_by("created_at"):
        yield {
            "kind": row.kind,
            "id": str(row.id),
            "begun": _iso(row.created_at),
            "completed": _iso(row.completed_at),
            "userId": row.user_id,
            "userName": row.user_name,
            "email": shown_address(row.email),
            "role": row.role,
            "changed": row.changed_fields,
        }


def _iso(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat(timespec="seconds")
