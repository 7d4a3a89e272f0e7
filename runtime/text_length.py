"""Length checks for untrusted text, which come before any other processing (docs/adr/0038).

Normalising a run of combining marks takes quadratic time and holds the GIL throughout. Each entry point therefore
rejects text with too many bytes before it normalises, case-folds, matches, hashes or logs the text.
"""

import os
from collections.abc import Sequence
from typing import Final

# Maximum bytes of a command's argument: no name, address, topic, path or reason is longer.
ARGUMENT_MAX: Final = 1024
# The Django command whose argument is a program.
_TAKES_PROGRAMS: Final = "shell"


def is_longer_than(most: int, text: str) -> bool:
    """Whether the text has more than `most` bytes in UTF-8. The cost is bounded by `most`, not by the text's length."""
    return len(text) > most or len(text.encode(errors="surrogatepass")) > most


def shortened(text: str, most: int) -> str:
    """Return the text; if it has more than `most` characters, its beginning and its length."""
    return text if len(text) <= most else f"{text[:most]}… ({len(text)} characters)"


def refusal_of_arguments(arguments: Sequence[str]) -> str | None:
    """Return why the command line is refused, in one line that quotes nothing of it; None if it is accepted.

    This check comes before argparse and the commands, because they quote invalid arguments."""
    if arguments and arguments[0] == _TAKES_PROGRAMS:
        return None
    for number, argument in enumerate(arguments, 1):
        size = len(os.fsencode(argument))
        if size > ARGUMENT_MAX:
            return f"Argument {number} has {size} bytes; at most {ARGUMENT_MAX} are allowed."
    return None
