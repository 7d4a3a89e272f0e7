"""Terminal input and output of commands. Untrusted text is escaped, so that it can't control the terminal."""

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

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


def typed_answer(question: str) -> str:
    """Ask at the terminal, and return the answer; "" if the input ends instead, as with Ctrl-D."""
    try:
        return input(question).strip()
    except EOFError:
        sys.stdout.write("\n")
        return ""


def user_id_argument(text: str) -> str:
    """Return the argument, unless it is empty, like that of an unset variable of a shell: erased records have an empty
    user ID, and none of them is meant."""
    if not text.strip():
        raise argparse.ArgumentTypeError("a user ID can't be empty")
    return text


def printable(text: str) -> str:
    """Return the text with control characters but line breaks escaped: its author is untrusted."""
    return "".join(
        character if character.isprintable() or character == "\n" else character.encode("unicode_escape").decode()
        for character in text
    )
