"""A SCIM service's part in `manage.py reconcile`: compare the users with a page of auth's records, and heal them."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final
from uuid import UUID

from eventbus.messages import HandledBatch, Incoming
from participant.events import UserRecord
from participant.reconcile import ConflictingRow, Finding, FindingKind, ReconcilePage, answer_pages, finding_about
from participant.verdict import VerdictCode
from runtime.errors import PermanentError, TransientError
from runtime.terminal import printable
from scimsvc.account_claims import ATTEMPT
from scimsvc.connection import Connection
from scimsvc.errors import LostClaimError, UnfinishedError
from scimsvc.models import ScimAccount

if TYPE_CHECKING:
    from scimsvc.resource import ScimUser

logger = logging.getLogger(__name__)

# Errors that concern one account, which is reported as not healed. The others of its page are healed nevertheless.
_NOT_HEALED: Final = (UnfinishedError, LostClaimError, PermanentError)


class ScimReconcileHandler:
    """Look up every record of a page at the server, heal if the page asks for it, and answer.

    This is an eventbus.messages.Handler. An expired page is ignored. Users that no sign-up of auth created are the
    server's own and are not reported. Raises TransientError while the server can't be used, and to continue a page that
    takes long.
    """

    def __init__(self, service: str) -> None:
        self.service = service
        self.connection = Connection(service)
        # The comparisons of the current page that are done.
        self._page: tuple[UUID, int] | None = None
        self._compared: dict[UUID, Finding | None] = {}

    def __call__(self, batch: Sequence[Incoming]) -> HandledBatch:
        return answer_pages(batch, self._findings, service=self.service)

    def _findings(self, page: ReconcilePage) -> list[Finding]:
        if self._page != (page.run_id, page.page):
            self._page, self._compared = (page.run_id, page.page), {}
        until = time.monotonic() + ATTEMPT
        for owner, compare in self._comparisons(page):
            if owner in self._compared:
                continue
            if time.monotonic() > until:
                raise TransientError(f"{self.service} is slow: {len(self._compared)} users of the page are compared")
            with self.connection.provisioning.in_time():
                self._compared[owner] = compare()
        return [finding for finding in self._compared.values() if finding is not None]

    def _comparisons(self, page: ReconcilePage) -> Iterator[tuple[UUID, Callable[[], Finding | None]]]:
        accounts = ScimAccount.objects.filter(server=self.service)
        owners = [record.owner_signup_id for record in page.records]
        rows = {row.owner_signup_id: row for row in accounts.filter(owner_signup_id__in=owners)}
        for record in page.records:
            owner = record.owner_signup_id
            yield owner, partial(self._compare, record, rows.get(owner), heal=page.heal)
        living = accounts.filter(removed_at__isnull=True).exclude(scim_id="").order_by("pk")
        for row in living.filter(owner_signup_id__in=page.removed):
            yield row.owner_signup_id, partial(self._compare_removed, row.owner_signup_id, heal=page.heal)
        if page.owners is not None:
            if page.owners.after is not None:
                living = living.filter(owner_signup_id__gt=page.owners.after)
            if page.owners.up_to is not None:
                living = living.filter(owner_signup_id__lte=page.owners.up_to)
            for row in living.exclude(owner_signup_id__in=[*owners, *page.removed]):
                yield row.owner_signup_id, partial(self._superfluous, row.owner_signup_id)

    def _compare(self, record: UserRecord, row: ScimAccount | None, *, heal: bool) -> Finding | None:
        if row is not None and row.removed_at is not None:
            return finding_about(FindingKind.REVIVED, record)
        if row is not None and row.version > record.version:
            return finding_about(FindingKind.NEWER, record, version=row.version)
        user = self.connection.provisioning.find(record.owner_signup_id)
        fields = self._different_fields(record, user, row) if user is not None else ()
        if user is not None and not fields:
            return None
        kind = FindingKind.MISSING if user is None else FindingKind.DIFFERENT
        return self._healed(record, kind, fields) if heal else finding_about(kind, record, fields=fields)

    def _different_fields(self, record: UserRecord, user: "ScimUser", row: ScimAccount | None) -> tuple[str, ...]:
        from scimsvc.resource import differences, user_of

        is_older = row is None or row.version < record.version
        return (*differences(user, user_of(record)), *(["version"] if is_older else []))

    def _healed(self, record: UserRecord, kind: FindingKind, fields: tuple[str, ...]) -> Finding:
        try:
            judgement = self.connection.provisioning.heal(record)
        except _NOT_HEALED as error:
            self._log_not_healed(record.owner_signup_id, error)
            return finding_about(kind, record, fields=fields)
        if judgement.verdict in (VerdictCode.DUPLICATE_USER_ID, VerdictCode.DUPLICATE_EMAIL):
            # Only the owners of the conflicting users are known here.
            held_by = tuple(ConflictingRow("", "", holder.owner_signup_id) for holder in judgement.held_by)
            return finding_about(FindingKind.CONFLICTING, record, held_by=held_by)
        return finding_about(kind, record, fields=fields, healed=judgement.verdict is VerdictCode.DONE)

    def _compare_removed(self, owner: UUID, *, heal: bool) -> Finding:
        user = self.connection.provisioning.find(owner)
        if heal:
            try:
                self.connection.provisioning.remove(owner)
            except _NOT_HEALED as error:
                self._log_not_healed(owner, error)
                heal = False
        return Finding(FindingKind.REMOVED, *_names(user), owner, healed=heal)

    def _log_not_healed(self, owner: UUID, error: Exception) -> None:
        logger.warning("%s: the account %s is not healed: %s", self.service, owner, error)

    def _superfluous(self, owner: UUID) -> Finding | None:
        user = self.connection.provisioning.find(owner)
        return Finding(FindingKind.SUPERFLUOUS, *_names(user), owner) if user is not None else None


def _names(user: "ScimUser | None") -> tuple[str, str]:
    """Return the userName and the email address that the server has, with the characters escaped that no message can
    hold."""
    if user is None:
        return "", ""
    email = next((each.value for each in user.emails or () if each.value), "")
    return printable(user.user_name or ""), printable(email)
