"""Auth's records in the order in which a reconcile run sends them, and what auth knows of the owners of rows."""

from collections.abc import Iterator, Sequence
from typing import Final, TypeVar
from uuid import UUID

from django.db.models import Q

from authsvc.models import RemovedAccount, User, known_owners
from authsvc.reconcile.events import Finding, OwnerRange, UserRecord
from runtime.equality import normalize_email, user_id_key

T = TypeVar("T")
# Records, and tombstones, per page: at most 420 kB with the longest texts; Kafka accepts 1 MB.
PAGE: Final = 250


def record_pages() -> Iterator[tuple[list[UserRecord], list[UUID], OwnerRange]]:
    """Yield auth's records ordered by owner, and the owners of removed accounts, with the range of owners that the page
    covers.

    The ranges have no gaps: a participant's row in a range whose owner is not on the page is superfluous.
    """
    users = User.objects.order_by("owner_signup_id")
    tombstones = RemovedAccount.objects.order_by("owner_signup_id").values_list("owner_signup_id", flat=True)
    after: UUID | None = None
    while True:
        rest = Q() if after is None else Q(owner_signup_id__gt=after)
        page = list(users.filter(rest)[:PAGE])
        # Read the tombstones last: an account that is removed in between is on both lists, not on neither.
        removed = list(tombstones.filter(rest)[:PAGE])
        ends = [owners[-1] for owners in ([user.owner_signup_id for user in page], removed) if len(owners) == PAGE]
        up_to = min(ends, default=None)
        buried = {owner for owner in removed if up_to is None or owner <= up_to}
        records = [
            UserRecord.of(user)
            for user in page
            if user.owner_signup_id not in buried and (up_to is None or user.owner_signup_id <= up_to)
        ]
        yield records, sorted(buried), OwnerRange(after, up_to)
        if up_to is None:
            return
        after = up_to


def without_record(candidates: Sequence[Finding]) -> Iterator[Finding]:
    """Yield those superfluous rows for which auth still has no record. A user may have been created after the page was
    read, and a row that conflicts with a record is reported as that record's conflict instead.
    """
    for chunk in in_chunks(candidates):
        owners = known_owners({finding.owner_signup_id for finding in chunk if finding.owner_signup_id})
        user_ids = {user_id_key(finding.user_id) for finding in chunk}
        emails = {normalize_email(finding.email) for finding in chunk}
        held = User.objects.filter(Q(user_id_key__in=user_ids) | Q(email__in=emails))
        texts = {text for pair in held.values_list("user_id_key", "email") for text in pair}
        for finding in chunk:
            is_in_the_way = not texts.isdisjoint((user_id_key(finding.user_id), normalize_email(finding.email)))
            if finding.owner_signup_id not in owners and not is_in_the_way:
                yield finding


def in_chunks(items: Sequence[T], size: int = PAGE) -> Iterator[Sequence[T]]:
    """Split the items into chunks of at most `size`."""
    return (items[start : start + size] for start in range(0, len(items), size))
