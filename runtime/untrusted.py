"""Measuring what strangers send, before anything else is done with it (docs/adr/0038).

Normalising a run of combining marks takes time that grows with the square of its length and holds the interpreter all
the while. Each entry point therefore refuses what is too long, in bytes, before the text is normalised, case-folded,
matched, hashed or logged.
"""

import os
from collections.abc import Sequence
from typing import Final

# Bytes of one argument of a command: no name, address, topic, path or reason is longer.
ARGUMENT_MAX: Final = 1024
# Django's command whose argument is a program.
_TAKES_PROGRAMS: Final = "shell"


def is_longer_than(most: int, text: str) -> bool:
    """Whether the text has more than `most` bytes in UTF-8. Its cost is bounded by `most`, however long the text is."""
    return len(text) > most or len(text.encode(errors="surrogatepass")) > most


def shortened(text: str, most: int) -> str:
    """The text, or where it has more than `most` characters its beginning and how many it had."""
    return text if len(text) <= most else f"{text[:most]}… ({len(text)} characters)"


def refusal_of_arguments(arguments: Sequence[str]) -> str | None:
    """Why a command line is refused, in one line that shows nothing of it; None where it is taken. argparse and the
    commands quote what they can't use, so this comes before them."""
    if arguments and arguments[0] == _TAKES_PROGRAMS:
        return None
    for number, argument in enumerate(arguments, 1):
        size = len(os.fsencode(argument))
        if size > ARGUMENT_MAX:
            return f"Argument {number} has {size} bytes; at most {ARGUMENT_MAX} are taken."
    return None
