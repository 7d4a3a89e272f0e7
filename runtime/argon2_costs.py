"""The costs of argon2id that make stolen hashes expensive to crack."""

from typing import Final

# Memory in KiB, and the number of passes that suffices with it (OWASP's Password Storage Cheat Sheet).
_SUFFICIENT: Final = ((47_104, 1), (19_456, 2), (12_288, 3), (9_216, 4), (7_168, 5))


def is_sufficient(memory: int, passes: int) -> bool:
    """Whether these costs (memory in KiB) are at least those that OWASP recommends."""
    return any(memory >= least and passes >= count for least, count in _SUFFICIENT)
