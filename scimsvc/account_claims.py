"""Claims on accounts: at most one process works on an account at one server at a time.

Requests about an account can reach two processes at once: they come from several topics, and a process whose partitions
were revoked finishes its batch. Without a claim, both could find no user at the server and both create one.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from django.db.models import Q
from django.utils import timezone

from runtime.terminal import printable
from scimsvc.errors import LostClaimError
from scimsvc.models import LAST_ANSWER_MAX, ScimAccount

# Seconds for all requests about one account, of which there are usually two or three.
ACCOUNT_WITHIN: Final = 45.0
# Seconds after which the rest of a batch or page is left to the next attempt. Its last account may take ACCOUNT_WITHIN
# more. The consumer counts as stuck after eventbus.consumer.TRY_WITHIN seconds without an end of its attempt.
ATTEMPT: Final = 10.0
# Seconds until another process may take over an account whose process died.
CLAIM: Final = timedelta(seconds=75)
# Accounts of the longest exchange of values that is resolved.
CYCLE_MAX: Final = 10


@contextmanager
def claimed(server: str, owner: UUID) -> Iterator[ScimAccount]:
    """Claim the account, yield it, and save it on every exit; its `last_answer` after an error is the error.

    Raises LostClaimError if another process has claimed it, or if it took over because this one took too long.
    """
    account = _claim(server, owner)
    try:
        yield account
    except Exception as error:
        account.last_answer = str(error)
        raise
    finally:
        _save(account)


def _claim(server: str, owner: UUID) -> ScimAccount:
    account, _ = ScimAccount.objects.get_or_create(server=server, owner_signup_id=owner)
    now = timezone.now()
    free = Q(claimed_until__isnull=True) | Q(claimed_until__lt=now)
    if not ScimAccount.objects.filter(free, pk=account.pk).update(claimed_until=now + CLAIM):
        raise LostClaimError(f"another process works on the account {owner}")
    account.refresh_from_db()
    return account


def _save(account: ScimAccount) -> None:
    claim: datetime | None = account.claimed_until
    # A server's words may be long, and may contain characters that no database stores.
    last_answer = printable(account.last_answer[:LAST_ANSWER_MAX])[:LAST_ANSWER_MAX]
    saved = ScimAccount.objects.filter(pk=account.pk, claimed_until=claim).update(
        signup_id=account.signup_id,
        scim_id=account.scim_id,
        version=account.version,
        last_answer=last_answer,
        answered_at=timezone.now(),
        blocked_by=account.blocked_by,
        removed_at=account.removed_at,
        claimed_until=None,
    )
    if not saved:
        raise LostClaimError(f"another process took over the account {account.owner_signup_id}")


def is_in_cycle(account: ScimAccount) -> bool:
    """Whether the accounts that block each other lead from this one back to it, as after an exchange of addresses."""
    blocked = ScimAccount.objects.filter(server=account.server, blocked_by__isnull=False)
    next_owner = account.blocked_by
    for _ in range(CYCLE_MAX):
        if next_owner is None or next_owner == account.owner_signup_id:
            break
        next_owner = blocked.filter(owner_signup_id=next_owner).values_list("blocked_by", flat=True).first()
    return next_owner == account.owner_signup_id


def versions_of(server: str, owners: set[UUID]) -> dict[UUID, int]:
    """Return the versions of those of these accounts that the server has."""
    accounts = ScimAccount.objects.filter(server=server, owner_signup_id__in=owners, removed_at__isnull=True)
    return dict(accounts.exclude(scim_id="").values_list("owner_signup_id", "version"))
