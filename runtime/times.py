"""Times as people read and write them, in TIME_ZONE."""

import argparse
from datetime import UTC, datetime

from django.utils import timezone


def to_the_second(at: datetime) -> str:
    """As in 2026-01-31 09:30:00."""
    return f"{timezone.localtime(at):%Y-%m-%d %H:%M:%S}"


def to_the_millisecond(at: datetime) -> str:
    """As in 2026-01-31 09:30:00.123."""
    return f"{to_the_second(at)}.{at.microsecond // 1000:03}"


def time_argument(text: str) -> datetime:
    """An ISO date (its midnight) or time, in TIME_ZONE unless it says otherwise; returned in UTC, as it is stored."""
    try:
        at = datetime.fromisoformat(text)
        return (at if timezone.is_aware(at) else timezone.make_aware(at)).astimezone(UTC)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no ISO date or time, such as 2026-01-31 or 2026-01-31T09:30"
        ) from None
    except OverflowError:
        raise argparse.ArgumentTypeError(f"{text!r} is outside the calendar, which has the years 1 to 9999") from None
