"""Terminal input and output of commands. Untrusted text is escaped, so that it can't control the terminal."""

import argparse
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

from django.utils import timezone

# Maximum characters of a line, and of every column except the last.
LINE: Final = 200
COLUMN: Final = 60


def table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield the rows as lines, with each column as wide as its widest cell."""
    shown = [[" ".join(printable(cell).split()) for cell in row] for row in rows]
    widths = [min(max(map(len, column)), COLUMN) for column in zip(*shown, strict=True)]
    for row in shown:
        padded = [cell[:most].ljust(most) for cell, most in zip(row[:-1], widths, strict=False)]
        line = "  ".join([*padded, row[-1]])
        yield (line if len(line) <= LINE else line[: LINE - 1] + "…").rstrip()


def titled(lines: Iterable[tuple[str, str]]) -> Iterator[str]:
    for title, text in lines:
        for number, line in enumerate(printable(text).splitlines()):
            yield f"{'' if number else title:<12} {line}".rstrip()


def printable(text: str) -> str:
    """Return the text with control characters escaped, because the sender of a message is untrusted."""
    return "".join(
        character if character.isprintable() or character == "\n" else character.encode("unicode_escape").decode()
        for character in text
    )


def to_the_second(at: datetime) -> str:
    return f"{timezone.localtime(at):%Y-%m-%d %H:%M:%S}"


def moment(text: str) -> datetime:
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
