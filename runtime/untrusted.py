"""Measuring what strangers send, before anything else is done with it (docs/adr/0038).

Normalising a run of combining marks takes time that grows with the square of its length and holds the interpreter all
the while. Each entry point therefore refuses what is too long, in bytes, before the text is normalised, case-folded,
matched, hashed or logged.
"""

import argparse
from typing import Final

# Bytes of one argument of a command: no name, address, topic or reason is longer.
ARGUMENT_MAX: Final = 1024


def is_longer_than(most: int, text: str) -> bool:
    """Whether the text has more than `most` bytes in UTF-8. Its cost is bounded by `most`, however long the text is."""
    return len(text) > most or len(text.encode(errors="surrogatepass")) > most


def shortened(text: str, most: int) -> str:
    """The text, or where it has more than `most` characters its beginning and how many it had."""
    return text if len(text) <= most else f"{text[:most]}… ({len(text)} characters)"


def argument(text: str) -> str:
    """The type of a command's argument that is a text. Raises argparse.ArgumentTypeError where it is too long."""
    if is_longer_than(ARGUMENT_MAX, text):
        raise argparse.ArgumentTypeError(f"this is longer than {ARGUMENT_MAX} bytes")
    return text
