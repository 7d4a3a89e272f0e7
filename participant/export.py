"""A participant's part in an export: everything that it holds about one account (docs/asyncapi.yaml).

Exports share the consumer group of reconcile's pages: both are rare, and a new user must wait for neither.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Final
from uuid import UUID

import msgspec
from django.db.models import QuerySet
from msgspec import Meta

from eventbus.incoming_traces import traceparent_of
from eventbus.messages import HandledBatch, Handler, Incoming, Outgoing, decode_each, decoder_of, event_message

EXPORT_REQUESTED: Final = "user.export.req"
EXPORT_ANSWERED: Final = "user.export.res"

# Columns without information about the person; `blocked_by` is about somebody else.
_TECHNICAL: Final = frozenset({"id", "user_id_key", "removed_at", "claimed_until", "blocked_by"})

ExportedValue = str | int | float | bool | None
ExportedRecord = Mapping[str, ExportedValue]


class ExportRequested(msgspec.Struct, frozen=True, rename="camel"):
    """Asks `services` for what they hold about an account. Unknown fields are ignored."""

    export_id: UUID
    owner_signup_id: UUID
    services: list[str]
    expires_at: Annotated[datetime, Meta(tz=True)]


class ExportAnswered(msgspec.Struct, frozen=True, rename="camel"):
    """The records that one service holds."""

    export_id: UUID
    service: str
    records: Sequence[ExportedRecord]
    occurred_at: datetime


decode_export: Final = decoder_of(ExportRequested)


@dataclass(frozen=True, slots=True)
class ExportHandler:
    """Answer each request that asks `service` with the records that `held` returns for the account.

    This is an eventbus.messages.Handler. An expired request is ignored: nobody waits for its answer.
    """

    service: str
    held: Callable[[UUID], Sequence[ExportedRecord]]

    def __call__(self, batch: Sequence[Incoming]) -> HandledBatch:
        decoded, rejected = decode_each(batch, decode_export)
        now = datetime.now(UTC)
        asked = [(message, request) for message, request in decoded if self.service in request.services]
        answers = [self._answer(message, request) for message, request in asked if request.expires_at > now]
        return HandledBatch(answers=answers, rejected=rejected)

    def _answer(self, message: Incoming, request: ExportRequested) -> Outgoing:
        event = ExportAnswered(
            export_id=request.export_id,
            service=self.service,
            records=self.held(request.owner_signup_id),
            occurred_at=datetime.now(UTC),
        )
        key, source = str(request.export_id), f"/{self.service}"
        return event_message(EXPORT_ANSWERED, event, key=key, source=source, traceparent=traceparent_of(message))


@dataclass(frozen=True, slots=True)
class ByTopic:
    """Pass the messages of each topic to its own handler, for a group that reads several topics."""

    handlers: Mapping[str, Handler]

    def __call__(self, batch: Sequence[Incoming]) -> HandledBatch:
        handled = [
            handle(part)
            for topic, handle in self.handlers.items()
            if (part := [message for message in batch if message.topic == topic])
        ]
        return HandledBatch(
            answers=[answer for each in handled for answer in each.answers],
            rejected=[rejected for each in handled for rejected in each.rejected],
        )


def rows_held(rows: QuerySet[Any]) -> Callable[[UUID], Sequence[ExportedRecord]]:
    """Return the function that exports the account's rows of this query, with all columns but technical ones.

    A tombstone is not exported: it holds nothing of a person."""
    names = [field.name for field in rows.model._meta.concrete_fields if field.name not in _TECHNICAL]

    def held(owner: UUID) -> list[ExportedRecord]:
        found = rows.filter(owner_signup_id=owner, removed_at=None).values(*names)
        return [{_camel(name): _plain(value) for name, value in row.items()} for row in found]

    return held


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


def _plain(value: object) -> ExportedValue:
    return value if isinstance(value, ExportedValue) else str(value)
