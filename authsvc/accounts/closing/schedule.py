"""The grace period: an account to be closed works as before until its time, when the relay removes it."""

from datetime import datetime, timedelta

from django.conf import settings
from django.utils import timezone

from authsvc.models import NoSuchAccountError, User
from authsvc.signups.changes import remove_account
from runtime.security_log import log_security_event


def begin_closing(user: User) -> datetime:
    """Schedule the removal and return its time. A second request doesn't postpone it. Raise NoSuchAccountError."""
    at = timezone.now() + timedelta(days=settings.ACCOUNT_CLOSING_DAYS)
    User.objects.filter(pk=user.pk, closes_at=None).update(closes_at=at)
    if (stored := User.objects.filter(pk=user.pk).first()) is None:
        raise NoSuchAccountError
    return stored.closes_at or at


def keep_account(user: User) -> bool:
    """Cancel the removal. Return False if none was scheduled."""
    return bool(User.objects.filter(pk=user.pk, closes_at__isnull=False).update(closes_at=None))


def _is_due(user: User) -> bool:
    """Whether the removal is still scheduled, its time has come, and the account isn't a staff account now."""
    return user.closes_at is not None and user.closes_at <= timezone.now() and not user.is_staff


def remove_closed(limit: int) -> int:
    """Remove at most `limit` accounts whose grace period is over. Return their number."""
    due = list(User.objects.filter(closes_at__lte=timezone.now(), is_staff=False).order_by("closes_at")[:limit])
    for user in due:
        try:
            # The owner may have changed their mind, or another relay may have removed the account.
            row = remove_account(user, only_if=_is_due)
        except NoSuchAccountError:
            continue
        log_security_event("account_removed", actor="relay", detail=str(row.owner_signup_id))
    return len(due)
