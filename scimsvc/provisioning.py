"""Carry out one request at one SCIM server, and judge the result."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final, TypeGuard
from uuid import UUID

from participant.events import NewUser, Request, UserChange, UserRecord, UserRemoval
from participant.verdict import DONE, REMOVED, Holder, Judgement, VerdictCode
from scimsvc import account_claims
from scimsvc.account_claims import claimed, is_in_cycle, versions_of
from scimsvc.errors import ScimError, ScimUnavailableError, UnfinishedError
from scimsvc.models import ScimAccount
from scimsvc.resource import ScimUser, Value, changes, user_of
from scimsvc.server import ScimServer

# The domain of an address that an account has while others of a cycle are changed (RFC 2606): it receives no mail.
NOWHERE: Final = "signup-sync.invalid"
# Statuses of the answer to a lookup by an attribute that the server can't filter by. Some ignore the filter.
CANT_FILTER: Final = frozenset({200, 400, 403, 404, 501})


class Provisioning:
    """Apply requests to the users of one server. `name` is the service's name.

    Repeating a request changes nothing further: each begins with a lookup by `externalId`, which is the owner's id, and
    with the account's row, which holds the version that the server has.
    """

    def __init__(self, name: str, server: ScimServer) -> None:
        self._name = name
        self._server = server

    def close(self) -> None:
        self._server.close()

    @contextmanager
    def in_time(self) -> Iterator[None]:
        """Limit the time of all requests to the server in this context to ACCOUNT_WITHIN seconds of `account_claims`.
        If contexts are nested, the limit of the outer one applies."""
        with self._server.until(time.monotonic() + account_claims.ACCOUNT_WITHIN):
            yield

    def apply(self, request: Request) -> Judgement:
        """Raises the errors of scimsvc.errors. Retrying is safe after any of them."""
        with self.in_time(), claimed(self._name, request.owner_signup_id) as account:
            if isinstance(request, UserRemoval):
                self._remove(account, version=request.version)
                return DONE
            if account.removed_at is not None:
                # A process that was frozen during the removal may have created the user again.
                self._delete_all(account)
                return REMOVED
            if isinstance(request, UserChange) and account.scim_id and account.version >= request.version:
                return DONE
            return self._bring_up_to_date(account, request)

    def find(self, owner: UUID) -> ScimUser | None:
        """Return the server's user of this account, for a comparison."""
        return next(iter(self._server.find(owner)), None)

    def heal(self, record: UserRecord) -> Judgement:
        """Bring the user in line with the record, even if somebody at the server changed or deleted it."""
        change = UserChange(transaction_id=record.owner_signup_id, **record_fields(record))
        with self.in_time(), claimed(self._name, record.owner_signup_id) as account:
            if account.removed_at is not None:
                return REMOVED
            if account.version > record.version:
                return DONE
            return self._bring_up_to_date(account, change, is_forced=True)

    def remove(self, owner: UUID) -> None:
        """Remove an account that auth has removed."""
        with self.in_time(), claimed(self._name, owner) as account:
            self._remove(account, version=1)

    def _bring_up_to_date(
        self, account: ScimAccount, request: NewUser | UserChange, *, is_forced: bool = False
    ) -> Judgement:
        wanted = user_of(request)
        user = self._find(account)
        is_known = bool(account.scim_id) and user is not None
        if user is None and account.version > request.version:
            # The server has lost the user. This record is outdated, so leave it to reconcile to create the user again.
            return self._judge(account, request)
        if user is None:
            try:
                user = self._create(account, wanted)
                account.version = request.version
            except ScimError as error:
                if not error.is_unique:
                    raise
                # The user may be ours: a lookup can miss what was created a moment ago.
                user = self._find(account)
                if user is None:
                    return self._duplicate(account, request)
        if not is_known:
            account.signup_id = request.signup_id if isinstance(request, NewUser) else request.owner_signup_id
        account.scim_id = user.id or ""
        is_current = account.version >= request.version and not is_forced
        is_current = is_current or self._modify(account, user, wanted)
        if is_current:
            account.version = max(account.version, request.version)
            account.blocked_by = None
        if not isinstance(request, UserChange):
            return self._judge(account, request)
        if is_current:
            return DONE
        judgement = self._duplicate(account, request)
        if is_in_cycle(account):
            self._step_aside(account, user, wanted)
        return judgement

    def _judge(self, account: ScimAccount, request: NewUser | UserChange) -> Judgement:
        if isinstance(request, UserChange) or request.signup_id in (account.signup_id, request.owner_signup_id):
            return DONE
        return Judgement(VerdictCode.DUPLICATE_USER_ID, self._held_by({request.owner_signup_id}))

    def _find(self, account: ScimAccount) -> ScimUser | None:
        found = self._server.find(account.owner_signup_id)
        # If the server has several, prefer the one that we know.
        return next((user for user in found if user.id == account.scim_id), found[0] if found else None)

    def _create(self, account: ScimAccount, wanted: ScimUser) -> ScimUser:
        """Create the user. If the outcome is unclear, look it up: a lost answer must not lead to a second user."""
        try:
            created = self._server.create(wanted)
        except UnfinishedError as error:
            try:
                found = self._find(account)
            except ScimUnavailableError:
                raise error from None
            if found is None:
                raise
            account.last_answer = f"{error}; a lookup found the user"
            return found
        account.last_answer = "created"
        return created

    def _modify(self, account: ScimAccount, user: ScimUser, wanted: ScimUser) -> bool:
        """Change what differs. Return False if another user has one of the new values."""
        patch = changes(user, wanted)
        if patch is not None:
            try:
                self._server.modify(account.scim_id, patch)
            except ScimError as error:
                if not error.is_unique:
                    raise
                account.last_answer = str(error)
                return False
            account.last_answer = "changed"
        return True

    def _remove(self, account: ScimAccount, *, version: int) -> None:
        self._delete_all(account)
        account.scim_id = ""
        account.blocked_by = None
        account.version = max(account.version, version)
        account.removed_at = account.removed_at or datetime.now(UTC)
        account.last_answer = "deleted"

    def _delete_all(self, account: ScimAccount) -> None:
        """Delete the user that we know, whose externalId somebody may have changed, and every other one with this
        account's externalId. Look again: 404 may mean that the URL is wrong."""
        known = [account.scim_id] if account.scim_id else []
        if ids := {*known, *(user.id or "" for user in self._server.find(account.owner_signup_id))}:
            for scim_id in sorted(ids):
                self._server.delete(scim_id)
            if self._server.find(account.owner_signup_id):
                raise UnfinishedError("DELETE: the server still has the user")

    def _duplicate(self, account: ScimAccount, request: NewUser | UserChange) -> Judgement:
        """Name what another user has, and whose it is if the user is ours too."""
        held = self._others(self._server.find_by_user_name, request.user_id, request)
        verdict = VerdictCode.DUPLICATE_USER_ID
        if not held:
            held = self._others(self._server.find_by_email, request.email, request)
            verdict = VerdictCode.DUPLICATE_EMAIL
        account.last_answer = f"409: {verdict.reason}"
        ours = {UUID(user.external_id) for user in held if _is_uuid(user.external_id)}
        held_by = self._held_by(ours)
        account.blocked_by = next((holder.owner_signup_id for holder in held_by), None)
        return Judgement(verdict, held_by)

    def _step_aside(self, account: ScimAccount, user: ScimUser, wanted: ScimUser) -> None:
        """Give up the values that this account will not keep, so that the others of a cycle can be changed first. Auth
        knows that they are outdated, so this change is sent again until it succeeds."""
        away = user.model_copy(deep=True)
        if away.user_name != wanted.user_name:
            away.user_name = str(account.owner_signup_id)
        if [each.value for each in away.emails or ()] != [each.value for each in wanted.emails or ()]:
            away.emails = [Value(value=f"{account.owner_signup_id}@{NOWHERE}", primary=True)]
        self._modify(account, user, away)
        account.last_answer = "stepped aside for accounts that exchange their values with this one"

    def _others(
        self, find: Callable[[str], list[ScimUser]], value: str, request: NewUser | UserChange
    ) -> list[ScimUser]:
        """Return the other users that have this value; none if the server can't filter by that attribute."""
        try:
            found = find(value)
        except ScimUnavailableError as error:
            if error.status not in CANT_FILTER:
                raise
            return []
        return [user for user in found if user.external_id != str(request.owner_signup_id)]

    def _held_by(self, owners: set[UUID]) -> tuple[Holder, ...]:
        return tuple(Holder(owner, version) for owner, version in versions_of(self._name, owners).items())


def record_fields(record: UserRecord) -> dict[str, Any]:
    """Return the record's fields without those that a request adds."""
    return {name: getattr(record, name) for name in UserRecord.__struct_fields__}


def _is_uuid(text: str | None) -> TypeGuard[str]:
    try:
        UUID(text or "")
    except ValueError:
        return False
    return True
