"""The handler that saves a batch of new users and answers their requests."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter

from django.db import router
from django.db.models import Q

from eventbus.messages import HandledBatch, Incoming, decode_each
from participant.events import NewUser, answer, decode_new_user
from participant.models import ParticipantUser
from participant.verdict import Verdict, decide
from runtime.database.bulk_sql import insert, insert_new
from runtime.database.transactions import atomically, unless_crossed
from runtime.tracing import log_traces

logger = logging.getLogger(__name__)

_USER_ID_KEY = attrgetter("user_id_key")
# The fields that are unique among the rows.
_UNIQUE = (_USER_ID_KEY, attrgetter("email"))


@dataclass(frozen=True, slots=True)
class NewUserHandler:
    """Save the new users of a batch as rows of `model`, and answer every request that asks `service`.

    This is an eventbus.messages.Handler. The rows are committed when it returns. Raises TransientError if other writers
    conflicted too often, and django.db.OperationalError if the database is away. Rows saved by then are recognised when
    the batch is redelivered.
    """

    service: str
    model: type[ParticipantUser]

    def __call__(self, batch: Sequence[Incoming]) -> HandledBatch:
        decoded, rejected = decode_each(batch, decode_new_user)
        asked = [(message, request) for message, request in decoded if request.asks(self.service)]
        verdicts = self._save([request for _, request in asked])
        self._log([request for _, request in asked], verdicts)
        answers = [
            answer(message, request, verdict, service=self.service)
            for (message, request), verdict in zip(asked, verdicts, strict=True)
        ]
        return HandledBatch(answers=answers, rejected=rejected)

    def _save(self, requests: Sequence[NewUser]) -> list[Verdict]:
        """Optimistically assume every user is new, and read only the rows that conflict."""
        kept: set[str] = set()
        if all(len({key(request) for request in requests}) == len(requests) for key in _UNIQUE):
            # All writers use the same order, so that two batches mostly wait for each other rather than deadlock.
            rows = [self._row(request) for request in sorted(requests, key=_USER_ID_KEY)]
            kept = unless_crossed(lambda: self._insert_new(rows), otherwise=kept, using=self._database)
        known = [request for request in requests if request.user_id_key not in kept]
        others = iter(atomically(lambda: self._decide_and_insert(known), using=self._database) if known else ())
        return [Verdict.KEPT if request.user_id_key in kept else next(others) for request in requests]

    def _insert_new(self, rows: Sequence[ParticipantUser]) -> set[str]:
        return {row.user_id_key for row in insert_new(rows, key="user_id_key", using=self._database)}

    def _decide_and_insert(self, requests: Sequence[NewUser]) -> list[Verdict]:
        rows = self.model.objects.filter(
            Q(user_id_key__in={request.user_id_key for request in requests})
            | Q(email__in={request.email for request in requests})
        ).only("user_id_key", "email", "signup_id", "owner_signup_id")
        new, verdicts = decide(requests, rows)
        insert([self._row(request) for request in sorted(new, key=_USER_ID_KEY)], using=self._database)
        return verdicts

    @property
    def _database(self) -> str:
        return router.db_for_write(self.model)

    def _log(self, requests: Sequence[NewUser], verdicts: Sequence[Verdict]) -> None:
        for verdict in Verdict:
            judged = [request.signup_id for request, each in zip(requests, verdicts, strict=True) if each is verdict]
            words = f"{verdict.status} ({verdict.reason})" if verdict.reason else verdict.status
            log_traces(logger, f"sign-ups judged {words}: %d", judged)

    def _row(self, request: NewUser) -> ParticipantUser:
        return self.model(
            signup_id=request.signup_id,
            owner_signup_id=request.owner_signup_id,
            user_id=request.user_id,
            user_id_key=request.user_id_key,
            email=request.email,
            user_name=request.user_name,
            role=request.role,
        )
