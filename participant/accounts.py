"""The handler that applies a batch of new users, changes and removals, and answers them."""

import logging
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from operator import attrgetter
from typing import Final
from uuid import UUID

from django.db import router, transaction

from eventbus.messages import HandledBatch, Incoming, decode_each
from participant.decisions import decide
from participant.events import NewUser, Request, UserChange, UserRemoval, answer, decode_request, is_asked
from participant.models import ParticipantUser
from participant.new_users import OnNewUsers, call_on_new_users
from participant.user_table import new_row, rows_about, write, write_tombstones
from participant.verdict import DONE, Judgement, VerdictCode
from runtime.database.bulk_sql import insert_new
from runtime.database.transactions import atomically, unless_crossed
from runtime.tracing import log_traces

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class AccountHandler:
    """Apply the requests of a batch to the rows of `model`, and answer each request that asks `service`.

    This is an eventbus.messages.Handler. The rows are committed when it returns. Raises TransientError if other writers
    conflicted too often, and django.db.OperationalError if the database is unavailable. Rows saved by then are
    recognised when the batch is redelivered.
    """

    service: str
    model: type[ParticipantUser]
    on_new_users: OnNewUsers | None = None

    def __call__(self, batch: Sequence[Incoming]) -> HandledBatch:
        decoded, rejected = decode_each(batch, decode_request)
        asked = [(message, request) for message, request in decoded if is_asked(self.service, request)]
        requests = [request for _, request in asked]
        judgements = self._save(requests)
        _log(requests, judgements)
        answers = [
            answer(message, request, judgement, service=self.service)
            for (message, request), judgement in zip(asked, judgements, strict=True)
        ]
        return HandledBatch(answers=answers, rejected=rejected)

    def _save(self, requests: Sequence[Request]) -> list[Judgement]:
        """Optimistically assume every user is new, and read only the rows of the other requests."""
        rows = [new_row(self.model, request, request.signup_id) for request in _independent(requests)]
        # All writers use the same order, so that two batches mostly wait for each other rather than deadlock.
        rows.sort(key=attrgetter("user_id_key"))
        nobody: set[UUID | None] = set()
        saved = unless_crossed(lambda: self._insert_new(rows), otherwise=nobody, using=self._database)
        others = [request for request in requests if request.owner_signup_id not in saved]
        judged = iter(atomically(self._database)(self._decide_and_write)(others) if others else ())
        return [DONE if request.owner_signup_id in saved else next(judged) for request in requests]

    def _insert_new(self, rows: Sequence[ParticipantUser]) -> set[UUID | None]:
        # One statement needs no transaction.
        with transaction.atomic(using=self._database) if self.on_new_users else nullcontext():
            inserted = insert_new(rows, key="user_id_key", using=self._database)
            owners = {row.owner_signup_id for row in inserted}
            call_on_new_users(self.model, owners, self.on_new_users)
        return owners

    def _decide_and_write(self, requests: Sequence[Request]) -> list[Judgement]:
        decision = decide(requests, rows_about(self.model, requests, is_locked=False))
        if decision.overwrites:
            # A lock writes to each row, and most batches change none. So read again, and decide about locked rows.
            decision = decide(requests, rows_about(self.model, requests, is_locked=True))
        write_tombstones(self.model, [(removal.owner_signup_id, removal.version) for removal in decision.removals])
        write(self.model, updates=decision.updates, inserts=decision.inserts)
        call_on_new_users(self.model, [record.owner_signup_id for record, _ in decision.inserts], self.on_new_users)
        return decision.judgements

    @property
    def _database(self) -> str:
        return router.db_for_write(self.model)


def _independent(requests: Sequence[Request]) -> list[NewUser]:
    """Return the new users that share no owner, userId or email with another request of the batch."""
    owners = Counter(request.owner_signup_id for request in requests)
    records = [request for request in requests if not isinstance(request, UserRemoval)]
    user_ids = Counter(record.user_id_key for record in records)
    emails = Counter(record.email for record in records)
    return [
        record
        for record in records
        if isinstance(record, NewUser)
        and owners[record.owner_signup_id] == user_ids[record.user_id_key] == emails[record.email] == 1
    ]


_WORDS: Final = {NewUser: "sign-ups", UserChange: "changes", UserRemoval: "removals"}


def _log(requests: Sequence[Request], judgements: Sequence[Judgement]) -> None:
    judged: dict[tuple[str, VerdictCode], list[UUID]] = {}
    for request, judgement in zip(requests, judgements, strict=True):
        judged.setdefault((_WORDS[type(request)], judgement.verdict), []).append(request.transaction_id)
    for (noun, verdict), ids in judged.items():
        words = f"{verdict.status} ({verdict.reason})" if verdict.reason else verdict.status
        log_traces(logger, f"{noun} judged {words}: %d", ids)
