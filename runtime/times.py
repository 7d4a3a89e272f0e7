"""Format and parse times for people, in TIME_ZONE."""

import argparse
from datetime import UTC, datetime
from math import ceil

from django.utils import timezone
from django.utils.translation import ngettext


def to_the_second(at: datetime) -> str:
    """Return the time as in 2026-01-31 09:30:00."""
    return f"{timezone.localtime(at):%Y-%m-%d %H:%M:%S}"


def to_the_millisecond(at: datetime) -> str:
    """Return the time as in 2026-01-31 09:30:00.123."""
    return f"{to_the_second(at)}.{at.microsecond // 1000:03}"


def again_in(seconds: int) -> str:
    """Return the sentence that says when to try again, in the reader's language."""
    if seconds > 120:
        n = ceil(seconds / 60)
        return ngettext("Try again in %(n)d minute.", "Try again in %(n)d minutes.", n) % {"n": n}
    return ngettext("Try again in %(n)d second.", "Try again in %(n)d seconds.", seconds) % {"n": seconds}


def time_argument(text: str) -> datetime:
    """Parse an ISO date (its midnight) or time, in TIME_ZONE unless it has an offset, and return it in UTC."""
    try:
        at = datetime.fromisoformat(text)
        return (at if timezone.is_aware(at) else timezone.make_aware(at)).astimezone(UTC)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not an ISO date or time, such as 2026-01-31 or 2026-01-31T09:30"
        ) from None
    except OverflowError:
        raise argparse.ArgumentTypeError(f"{text!r} is outside the supported years, 1 to 9999") from None
